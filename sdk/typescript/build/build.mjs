// Builds a policy: node build.mjs <route.ts or package folder> -o policy.wasm --wit <folder> [--modules <folder>]
//
// `--modules` is the node_modules that has esbuild, componentize-js and what the runtime is made of; see toolchain/package.json.
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

/** Each attempt finds out about at least one more module; an app has not so many that read anything. */
const MOST_ATTEMPTS = 12;

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
  for (const line of [...app.warnings, ...findSecrets(app.sources)]) say(line);

  const work = mkdtempSync(join(tmpdir(), "tidegate-policy-"));
  try {
    const component = join(work, "policy.wasm");
    const lazy = new Map();
    for (let attempt = 1; ; attempt++) {
      const source = join(work, "policy.js");
      writeFileSync(source, app.program([...app.lazy, ...lazy.keys()]));
      const report = componentize({ source, output: component, wit: values.wit, modules });
      const news = report.found.filter(({ module }) => !lazy.has(module) && !app.lazy.includes(module));
      if (news.length === 0) {
        if (report.failed.length > 0) throw new BuildError(report.failed.map((it) => app.explain(it)).join("\n"));
        for (const line of report.printed) say(`${app.name}: top-level code printed ${line}`);
        break;
      }
      if (attempt === MOST_ATTEMPTS) throw new BuildError(`${app.name}: which modules read settings at top level changes from one evaluation to the next`);
      for (const found of news) lazy.set(found.module, [...(lazy.get(found.module) ?? []), found]);
    }
    // Only what is right is left there.
    copyFileSync(component, resolve(values.output));
    for (const found of lazy.values()) for (const line of app.notes(found)) say(line);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Runs the second half in a process of its own, whose output is what the engine prints; gives back the app's report. */
function componentize({ source, output, wit, modules }) {
  const worker = fileURLToPath(new URL("./componentize.mjs", import.meta.url));
  const child = spawnSync(process.execPath, [worker, source, output, wit, modules], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const report = /\u0001tidegate (.*)/.exec(child.stdout ?? "")?.[1];
  if (report) {
    const { found, failed, printed } = JSON.parse(report);
    // A build that has to be done again stops early.
    if (child.status === 0 || found.length > 0 || failed.length > 0) return { found, failed, printed };
  }
  throw new BuildError(`the component could not be made\n${child.stdout}${child.stderr}`.trim());
}

function say(line) {
  process.stderr.write(`${line}\n`);
}
