// The first half of a build: bundles the modules that the route file imports into one program.
import { createRequire, SourceMap } from "node:module";
import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { BuildError } from "./errors.mjs";
import { polyfills } from "./polyfills.mjs";
import { resolver } from "./resolve.mjs";

/** The newest target that esbuild has; the engine supports it. */
const TARGET = "es2024";

/** Unsupported by the engine, so that every `\\p{…}` goes through platform/unicode.ts. */
const REGEXP = { "regexp-unicode-property-escapes": false, "regexp-sticky-and-unicode-flags": false };

const DEFINE = {
  "process.env.NODE_ENV": '"production"',
  "import.meta.env": "process.env",
  "import.meta.url": '"file:///policy.js"',
};

/** Bundles an app into one program. */
export async function bundle({ entry, sdk, modules }) {
  const esbuild = await load(modules);
  const root = process.cwd();
  const name = (path) => {
    const short = relative(root, path);
    return short.startsWith("..") ? path : short;
  };
  const { plugin, virtual, warnings } = resolver({ sdk, modules });
  const common = { absWorkingDir: root, target: TARGET, define: DEFINE, jsx: "automatic", logLevel: "silent", write: false, legalComments: "none" };
  const attempt = async (options) => {
    try {
      return await esbuild.build({ ...common, ...options });
    } catch (error) {
      if (!error.errors) throw error;
      throw new BuildError(error.errors.map(formatAs("error")).join("\n"));
    }
  };

  const app = {
    bundle: true,
    metafile: true,
    format: "esm",
    platform: "browser",
    outfile: "app.js",
    // The conditions closest to this engine: web standards without a page and without Node.
    conditions: ["tidegate", "edge-light", "worker", "browser", "module"],
    mainFields: ["browser", "module", "main"],
    nodePaths: [modules],
    plugins: [plugin],
  };
  const found = await attempt({ ...app, entryPoints: [entry] });
  const exported = Object.values(found.metafile.outputs).flatMap((it) => it.exports);
  if (!["GET", "middleware", "default"].some((it) => exported.includes(it))) {
    throw new BuildError(`${name(entry)}: error: a policy exports GET (from handle()), or its middleware as \`middleware\` or as the default`);
  }
  const graph = new Map(Object.entries(found.metafile.inputs));

  const files = [...graph.keys()].filter((id) => !virtual.has(id));
  const top = relative(root, entry);
  const compiled = await attempt({
    entryPoints: files.map((id, at) => ({ in: resolve(root, id), out: String(at) })),
    outdir: "out",
    bundle: false,
    format: "cjs",
    platform: "browser",
    metafile: true,
    sourcemap: "external",
    sourcesContent: false,
    supported: { "dynamic-import": false, ...REGEXP },
    loader: { ".css": "empty" },
  }).catch((error) => {
    if (!/Top-level await/.test(error.message)) throw error;
    return undefined;
  });

  const codes = new Map();
  const lazy = [];
  if (compiled) {
    for (const [at, id] of files.entries()) {
      const text = (ending) => compiled.outputFiles.find((file) => file.path.endsWith(`${join("out", String(at))}${ending}`))?.text ?? "";
      codes.set(id, { code: text(".js"), map: text(".js.map") });
    }
    for (const [id, source] of virtual) {
      if (!graph.has(id)) continue;
      codes.set(id, { code: (await esbuild.transform(source, { format: "cjs", target: TARGET, define: DEFINE })).code, map: "" });
    }
  } else {
    // With `await` at top level the modules cannot be evaluated one by one, so the whole app is one module.
    const stdin = { contents: `import * as route from ${JSON.stringify(entry)};\nObject.assign(tidegateExports, route);`, resolveDir: root };
    const whole = await attempt({ ...app, stdin, supported: REGEXP });
    codes.set(top, { code: whole.outputFiles[0].text, map: "", whole: true });
    lazy.push(top);
  }
  const runtime = (await attempt({
    entryPoints: [join(sdk, "runtime/entry.ts")],
    bundle: true,
    format: "esm",
    platform: "browser",
    mainFields: ["browser", "module", "main"],
    external: ["tidegate:app", "tidegate:policy/*"],
    nodePaths: [modules],
    plugins: [virtualModules(polyfills({ codes: [...codes.values()].map((it) => it.code), sdk }), sdk)],
    outfile: "runtime.js",
  })).outputFiles[0].text;

  // The component must not contain paths of the build machine.
  const prefixes = [[relative(root, modules), "npm"], [relative(root, sdk), "@tidegate/policy"]].filter(([path]) => path.startsWith(".."));
  const shorten = (text) => prefixes.reduce((text, [path, short]) => text.replaceAll(`${path}/`, `${short}/`), text);
  return {
    lazy,
    name: name(entry),
    warnings: [
      ...(compiled ? [] : [`${name(entry)}: note: there is \`await\` at top level: the whole app is evaluated in every instance, not once at build`]),
      ...found.warnings.map(formatAs("warning")), ...warnings(),
    ],
    sources: files.map((id) => ({ name: id, text: read(resolve(root, id)), own: !id.includes("node_modules/") })),
    ...assemble({ graph, codes, runtime, entry: top, shorten }),
  };
}

/** Assembles the program, and records the lines of each module. */
function assemble({ graph, codes, runtime, entry, shorten }) {
  const sources = [];
  let text = "const tidegateModules = {\n";
  for (const [id, { code, map, whole }] of codes) {
    const imports = whole ? {} : Object.fromEntries(graph.get(id).imports.filter((it) => !it.external).map((it) => [it.original ?? it.path, it.path]));
    const linked = link(code, (name) => graph.get(imports[name])?.format === "esm");
    text += `${JSON.stringify(id)}: { imports: ${JSON.stringify(imports)}, ${whole ? "async " : ""}run(require, module, exports) {${whole ? " const tidegateExports = exports;" : ""}\n`;
    const first = text.split("\n").length;
    text += `${linked}\n}},\n`;
    sources.push({ id: shorten(id), first, last: first + code.split("\n").length, map });
  }
  text += "};\n";
  const order = evaluationOrder(graph, entry).filter((id) => codes.has(id));

  return {
    program(lazy) {
      const app = `{ modules: tidegateModules, entry: ${JSON.stringify(entry)}, order: ${JSON.stringify(order)}, lazy: ${JSON.stringify(lazy)} }`;
      return shorten(text + runtime.replace(/import (\w+) from "tidegate:app";/, (_, as) => `const ${as} = ${app};`));
    },
    /** Notes about modules that are evaluated in every instance: one line for each source line that causes it. */
    notes(found) {
      const reads = new Map();
      for (const it of found) reads.set(location(it), [...new Set([...(reads.get(location(it)) ?? []), it.state])]);
      return [...reads].map(([where, states]) => `${where}: note: top-level code reads ${states.join(", ")}: evaluated in every instance, not once at build`);
    },
    /** The error of a module that cannot be evaluated. */
    explain: (failed) => `${location(failed)}: error: top-level code failed: ${failed.error}`,
  };

  /** The source line of a stack: the innermost line in the module itself. */
  function location({ module, stack }) {
    const at = sources.find((it) => it.id === module);
    for (const [, line, column] of stack.matchAll(/policy\.js:(\d+):(\d+)/g)) {
      if (!at?.map || line < at.first || line >= at.last) continue;
      const entry = new SourceMap(JSON.parse(at.map)).findEntry(line - at.first, column - 1);
      if (entry.originalLine !== undefined) return `${module}:${entry.originalLine + 1}`;
    }
    return module;
  }
}

/** A plugin for virtual modules. */
function virtualModules(modules, resolveDir) {
  return {
    name: "virtual",
    setup(build) {
      build.onResolve({ filter: /^tidegate:(polyfills|unicode)$/ }, ({ path }) => ({ path, namespace: "virtual", sideEffects: true }));
      build.onLoad({ filter: /.*/, namespace: "virtual" }, ({ path }) => ({ contents: modules[path], resolveDir }));
    },
  };
}

/**
 * esbuild compiles a single module as if all its imports were CommonJS, with Node's rules for the default export. For imports that are
 * ES modules the exports are used unchanged.
 */
function link(code, isModule) {
  return code.replace(/__toESM\((require\(("(?:[^"\\\n]|\\.)*")\))(?:, 1)?\)/g, (all, call, name) => (isModule(JSON.parse(name)) ? call : all));
}

/** The modules that `entry` imports, each after its own imports; `entry` is the last. */
function evaluationOrder(graph, entry) {
  const order = new Set();
  const visited = new Set();
  const visit = (id) => {
    if (visited.has(id)) return;
    visited.add(id);
    for (const { path, kind, external } of graph.get(id)?.imports ?? []) {
      if (kind === "import-statement" && !external) visit(path);
    }
    order.add(id);
  };
  visit(entry);
  return [...order];
}

/** A function that formats messages of esbuild as lines of this kind. */
function formatAs(kind) {
  return ({ text, location, notes = [] }) => {
    const where = location ? `${location.file}:${location.line}: ` : "";
    const more = notes.map((note) => `\n  ${note.location ? `${note.location.file}:${note.location.line}: ` : ""}${note.text}`).join("");
    return `${where}${kind}: ${text}${more}`;
  };
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

async function load(modules) {
  const path = createRequire(join(modules, "_.js")).resolve("esbuild");
  return (await import(pathToFileURL(path).href)).default;
}
