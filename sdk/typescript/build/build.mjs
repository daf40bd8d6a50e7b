// Builds a policy: node build.mjs <route.ts or package folder> -o policy.wasm --wit <folder> [--modules <folder>]
//
// `--modules` is the node_modules folder with esbuild, componentize-js and the packages of the runtime; see toolchain/package.json.
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bundle } from "./bundle.mjs";
import { findEntry } from "./entry.mjs";
import { BuildError } from "./errors.mjs";
import { findSecrets } from "./secrets.mjs";

/** Each attempt finds at least one more module that reads instance state; apps have few of them. */
const MAX_ATTEMPTS = 12;

try {
  await main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { output: { type: "string", short: "o", default: "policy.wasm" }, wit: { type: "string" }, modules: { type: "string" } },
  });
  const here = fileURLToPath(new URL("..", import.meta.url));
  const modules = resolve(values.modules ?? join(here, "toolchain/node_modules"));
  const entry = findEntry(resolve(positionals[0] ?? "."));

  const app = await bundle({ entry, sdk: here, modules });
  for (const line of [...app.warnings, ...findSecrets(app.sources)]) print(line);

  const work = mkdtempSync(join(tmpdir(), "tidegate-policy-"));
  try {
    const component = join(work, "policy.wasm");
    const lazy = new Map();
    for (let attempt = 1; ; attempt++) {
      const source = join(work, "policy.js");
      writeFileSync(source, app.program([...app.lazy, ...lazy.keys()]));
      const report = componentize({ source, output: component, wit: values.wit, modules });
      const newUses = report.found.filter(({ module }) => !lazy.has(module) && !app.lazy.includes(module));
      if (newUses.length === 0) {
        if (report.failed.length > 0) throw new BuildError(report.failed.map((it) => app.explain(it)).join("\n"));
        for (const line of report.printed) print(`${app.name}: top-level code printed ${line}`);
        break;
      }
      if (attempt === MAX_ATTEMPTS) throw new BuildError(`${app.name}: the set of modules that read settings at top level changes with each evaluation`);
      for (const found of newUses) lazy.set(found.module, [...(lazy.get(found.module) ?? []), found]);
    }
    // The output is written only after a successful build.
    copyFileSync(component, resolve(values.output));
    for (const found of lazy.values()) for (const line of app.notes(found)) print(line);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Runs componentize.mjs in its own process, whose output is that of the engine, and returns the app's report. */
function componentize({ source, output, wit, modules }) {
  const worker = fileURLToPath(new URL("./componentize.mjs", import.meta.url));
  const child = spawnSync(process.execPath, [worker, source, output, wit, modules], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const report = /\u0001tidegate (.*)/.exec(child.stdout ?? "")?.[1];
  if (report) {
    const { found, failed, printed } = JSON.parse(report);
    // The snapshot may fail in an attempt that will be repeated.
    if (child.status === 0 || found.length > 0 || failed.length > 0) return { found, failed, printed };
  }
  throw new BuildError(`the component could not be built\n${child.stdout}${child.stderr}`.trim());
}

function print(line) {
  process.stderr.write(`${line}\n`);
}
