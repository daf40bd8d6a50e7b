// Types of `@tidegate/policy` in an editor: nothing is installed, and nothing was built.
import assert from "node:assert/strict";
import { spawnSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { Closing } from "./lib/closing.js";
import { DECLARATIONS, TSC, declarations } from "./lib/declarations.js";
import { BINARY } from "./lib/gateway.js";

const TSSERVER = createRequire(import.meta.url).resolve("typescript/lib/tsserver.js");

const closing = new Closing();
let dir;

before(() => {
  dir = closing.dir();
});

after(() => closing.run());

function tidegate(...args) {
  const run = spawnSync(BINARY, args, { cwd: dir, encoding: "utf8" });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout;
}

/** The errors that the compiler finds in a folder, as in the editor. */
function check(folder) {
  const run = spawnSync(process.execPath, [TSC, "--noEmit", "--pretty", "false", "-p", folder], { cwd: dir, encoding: "utf8" });
  return run.stdout.trim();
}

/** What an editor proposes at the mark of a file: names. */
async function complete(file) {
  const text = readFileSync(file, "utf8");
  const before = text.slice(0, text.indexOf("/*here*/")).split("\n");
  const at = { file, line: before.length, offset: before.at(-1).length + 1 };
  const server = spawn(process.execPath, [TSSERVER, "--disableAutomaticTypingAcquisition"], { stdio: ["pipe", "pipe", "inherit"] });
  const request = (seq, command, args) => server.stdin.write(`${JSON.stringify({ seq, type: "request", command, arguments: args })}\n`);
  try {
    request(1, "open", { file });
    request(2, "completionInfo", at);
    let received = "";
    for await (const part of server.stdout) {
      received += part;
      const line = received.split("\n").find((it) => it.includes('"request_seq":2') && it.endsWith("}"));
      if (line) return JSON.parse(line).body.entries.map(({ name }) => name);
    }
    throw new Error(`the language server ended: ${received}`);
  } finally {
    server.kill();
  }
}

test("declarations are generated from the sources", () => {
  const generated = declarations();
  if (process.env.BLESS) writeFileSync(DECLARATIONS, generated);
  assert.equal(readFileSync(DECLARATIONS, "utf8"), generated, "run `BLESS=1 npm test -- types.test.js`");
  assert.equal(tidegate("policy", "types"), generated);
});

for (const pattern of ["session", "user", "role"]) {
  test(`a new ${pattern}-based project has no type errors before anything is installed`, () => {
    const project = join(dir, `${pattern}-policy`);
    tidegate("policy", "new", project, "--lang", "typescript", "--pattern", pattern);
    assert.equal(check(project), "");
  });
}

test("an editor completes the SDK in a new project", async () => {
  const project = join(dir, "completed");
  tidegate("policy", "new", project, "--lang", "typescript");
  const policy = join(project, "policy.ts");
  const names = async (source) => {
    writeFileSync(policy, source);
    return complete(policy);
  };
  const imported = await names('import { /*here*/ } from "@tidegate/policy";\n');
  for (const name of ["allow", "cookie", "lookup", "reject", "tokens", "Middleware"]) assert.ok(imported.includes(name), `${name}: ${imported}`);
  const found = await names('import { lookup } from "@tidegate/policy";\nlookup./*here*/\n');
  assert.deepEqual(found.sort(), ["bytes", "get", "hashGet", "json", "setContains"]);
  const options = await names('import { allow } from "@tidegate/policy";\nallow({ /*here*/ });\n');
  assert.deepEqual(options.sort(), ["channels", "expiresAt", "headers", "subject"]);
  const input = await names('import type { Middleware } from "@tidegate/policy";\nexport const middleware: Middleware = (input) => input./*here*/\n');
  assert.deepEqual(input.sort(), ["channels", "request"]);
});

test("an app with the printed declarations checks a route file", () => {
  const app = join(dir, "app");
  const route = join(app, "app/api/realtime/route.ts");
  mkdirSync(dirname(route), { recursive: true });
  // As `create-next-app` writes it.
  const compilerOptions = { target: "ES2017", lib: ["dom", "dom.iterable", "esnext"], strict: true, noEmit: true, module: "esnext", moduleResolution: "bundler", isolatedModules: true };
  writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["**/*.ts"] }));
  writeFileSync(join(app, "tidegate-policy.d.ts"), tidegate("policy", "types"));
  const source = (subject) => `import { allow, tokens, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const { sub } = tokens.verify<{ sub: string }>(request.headers.get("authorization") ?? "");
  return allow({ subject: ${subject} });
};
`;
  writeFileSync(route, source("sub"));
  assert.equal(check(app), "");
  writeFileSync(route, source("sub.length"));
  assert.match(check(app), /route\.ts\(5,18\): error TS2322: Type 'number' is not assignable to type 'string'/);
});
