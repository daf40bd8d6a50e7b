// Route files as applications write them, built unchanged and asked with their cases; what their errors and their log lines say.
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Closing } from "./lib/closing.js";
import { build, serve, tidegate } from "./lib/policies.js";
import { until } from "./lib/until.js";

const closing = new Closing();
let dir;

before(() => {
  dir = closing.dir();
});

after(() => closing.run());

/** Builds a policy, and returns the component and what the build said. */
function built(path, ...options) {
  const component = join(dir, `${path.replaceAll("/", "-")}.wasm`);
  const { code, stderr } = build(path, component, ...options);
  assert.equal(code, 0, stderr);
  return { component, stderr };
}

for (const [what, route, cases] of [
  ["a route of Next.js gets the request and the modules of Next.js", "next/app/api/realtime/route.ts", "next/cases.toml"],
  ["NODE_ENV is a setting, and production by default", "node-env/route.ts", "node-env/cases.toml"],
]) {
  test(what, () => {
    const { component } = built(route);
    const { code, stdout, stderr } = tidegate("policy", "test", component, cases);
    assert.equal(code, 0, stdout + stderr);
  });
}

test("NODE_ENV of packages is an option of the build, which names them", () => {
  const app = join(dir, "cookies");
  const library = join(app, "node_modules/secure-cookies");
  mkdirSync(library, { recursive: true });
  writeFileSync(join(library, "package.json"), '{ "name": "secure-cookies", "main": "index.js" }');
  writeFileSync(join(library, "index.js"), 'exports.cookieName = (process.env.NODE_ENV === "production" ? "__Secure-" : "") + "app.session";\n');
  writeFileSync(join(app, "package.json"), '{ "main": "policy.js" }');
  writeFileSync(join(app, "policy.js"), 'import { cookieName } from "secure-cookies";\nexport const middleware = () => new Response(cookieName, { status: 403 });\n');
  for (const [options, name] of [[[], "__Secure-app.session"], [["--node-env", "development"], "app.session"]]) {
    const component = join(dir, "cookies.wasm");
    const { code, stderr } = build(app, component, ...options);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /NODE_ENV is "(production|development)" in the code of secure-cookies/);
    const cases = join(dir, "cookies.toml");
    writeFileSync(cases, `[[case]]\nname = "name"\nexpect = { status = 403, body = "${name}" }\n`);
    const { code: tested, stdout } = tidegate("policy", "test", component, cases);
    assert.equal(tested, 0, stdout);
  }
});

test("console.log shows objects", async () => {
  const gateway = await serve(closing, dir, built("errors/route.ts").component);
  await fetch(`${gateway.url}/api/realtime?channel=a`);
  await until("the gateway logs the objects", () => /request \{ path: '\/api\/realtime', ids: Map.*'a'.*Set.*1.*, at: .*1970-01-01T00:00:00.000Z.* \}/.test(gateway.log()));
});

test("an error in a decision names the line of the file", async () => {
  const gateway = await serve(closing, dir, built("errors/route.ts").component);
  const answer = await fetch(`${gateway.url}/api/realtime?channel=a`, { headers: { "x-session": "{}" } });
  assert.deepEqual([answer.status, await answer.text()], [500, "Internal Server Error"]);
  await until("the gateway logs the error", () => /TypeError: /.test(gateway.log()));
  const log = gateway.log();
  assert.match(log, /\berrors\/lib\/session\.ts:10:\d+/);
  assert.match(log, /\berrors\/route\.ts:7:\d+/);
});

test("an error of top-level code in an instance names the line of the file", async () => {
  const { component, stderr } = built("errors/config.ts");
  assert.match(stderr, /errors\/lib\/hosts\.ts:4: note: top-level code reads process\.env\.HOSTS/);
  const gateway = await serve(closing, dir, component);
  const answer = await fetch(`${gateway.url}/api/realtime?channel=a`);
  assert.equal(answer.status, 500);
  await until("the gateway logs the error", () => /\berrors\/lib\/hosts\.ts:4:\d+/.test(gateway.log()));
});
