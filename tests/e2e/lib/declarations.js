// Makes `sdk/typescript/policy.d.ts`: the public declarations of the SDK as ambient modules, which an editor finds without a package.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REPO } from "./gateway.js";

const SDK = join(REPO, "sdk/typescript");

/** The compiler of the package `typescript`. */
export const TSC = createRequire(import.meta.url).resolve("typescript/bin/tsc");

/** The generated file. */
export const DECLARATIONS = join(SDK, "policy.d.ts");

/** The modules, each with the files that declare its exports. */
const MODULES = {
  "@tidegate/policy": ["handle", "answer", "cookies", "imports"],
  "@tidegate/policy/testing": ["testing"],
};

const HEADER = `// Types of \`@tidegate/policy\` for an editor: \`tidegate policy types\` prints this file.
// Generated from \`src\` by \`BLESS=1 npm test -- types.test.js\`.
`;

/** A type of a file that is not public otherwise. */
const LEVEL = /^export (type Level = .*)$/m.exec(readFileSync(join(SDK, "src/host.ts"), "utf8"))[1];

/** The content of the file, from the sources of the SDK. */
export function declarations() {
  const dir = mkdtempSync(join(tmpdir(), "tidegate-types-"));
  try {
    const config = join(dir, "tsconfig.json");
    const compilerOptions = { noEmit: false, declaration: true, emitDeclarationOnly: true, outDir: join(dir, "out"), rootDir: join(SDK, "src") };
    const files = ["index", "testing"].map((name) => join(SDK, "src", `${name}.ts`));
    writeFileSync(config, JSON.stringify({ extends: join(SDK, "tsconfig.json"), compilerOptions, include: [], files }));
    execFileSync(process.execPath, [TSC, "-p", config], { stdio: "pipe" });
    const read = (name) => readFileSync(join(dir, "out", `${name}.d.ts`), "utf8");
    const exported = new Set(read("index").match(/\b\w+\b(?=,| \})/g));
    return HEADER + Object.entries(MODULES).map(([name, parts]) => ambient(name, parts.map(read).join("\n"), exported)).join("");
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function ambient(name, text, exported) {
  const isTesting = name.endsWith("/testing");
  // Each declaration with its comment.
  const statements = text.match(/(?:\/\*\*(?:(?!\*\/)[^])*\*\/\n)?(?:export |declare |import )[^]*?(?=\n(?:\/\*\*|export|declare|import)|\s*$)/g);
  const kept = statements.filter((statement) => {
    const [, kind, id] = /^(?:export )?(?:declare )?(import|function|class|const|interface|type)\b\s*([\w$]+)?/m.exec(statement) ?? [];
    if (kind === undefined || kind === "import") return false;
    return isTesting || id === "GRANT" || exported.has(id);
  });
  const level = /\bLevel\b/.test(text) ? `  ${LEVEL}\n\n` : "";
  const imports = isTesting ? '  import type { Middleware } from "@tidegate/policy";\n\n' : "";
  const body = kept.map((statement) => statement.trim().replaceAll(/^(export )?declare /gm, "$1").replaceAll("    ", "  ").replace(/^/gm, "  ")).join("\n\n");
  // Without `export {}` all declarations would be exported.
  return `\ndeclare module "${name}" {\n${imports}${level}${body}\n\n  export {};\n}\n`;
}
