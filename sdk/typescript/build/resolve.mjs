// Where imports lead, where it is not where they would lead on Node.
import { builtinModules } from "node:module";
import { join } from "node:path";

const BUILTIN = new Set(builtinModules);

/** What to use in place of a module of Node. */
const INSTEAD = {
  crypto: "`crypto.subtle`, `crypto.randomUUID()` and `crypto.getRandomValues()` are there",
  fs: "a policy has no files: import the file, or read a setting from process.env",
  "fs/promises": "a policy has no files: import the file, or read a setting from process.env",
  path: "a policy has no files",
  http: "`fetch` is there, to the hosts that the operator allows",
  https: "`fetch` is there, to the hosts that the operator allows",
  net: "a policy has no sockets; `fetch` is there, to the hosts that the operator allows",
  tls: "a policy has no sockets; `fetch` is there, to the hosts that the operator allows",
  url: "`URL` and `URLSearchParams` are there without an import",
  util: "`TextEncoder`, `TextDecoder` and `structuredClone` are there without an import",
  timers: "`setTimeout` is there without an import",
  "timers/promises": "`setTimeout` is there without an import",
};

/** A plugin for esbuild, with the modules that it made up. */
export function resolver({ sdk, modules }) {
  /** Made-up modules: their id in the metafile, and their source. */
  const virtual = new Map();
  const missing = new Map();
  const makeUp = (path, contents) => {
    virtual.set(`tidegate:${path}`, contents);
    return { path, namespace: "tidegate" };
  };

  const warnings = () => [...missing].map(([name, importer]) => `${importer}: warning: imports ${name}, which is Node's own: what uses it throws`);
  const plugin = {
    name: "tidegate",
    setup(build) {
      build.onLoad({ filter: /.*/, namespace: "tidegate" }, ({ path }) => ({
        contents: virtual.get(`tidegate:${path}`),
        loader: "js",
        resolveDir: sdk,
      }));

      build.onResolve({ filter: /^@tidegate\/policy(\/.*)?$/ }, async (args) => {
        if (args.pluginData?.mine) return undefined;
        const own = await build.resolve(args.path, { ...again(args) });
        if (own.errors.length === 0) return own;
        return { path: join(sdk, args.path.endsWith("/testing") ? "src/testing.ts" : "src/index.ts") };
      });

      // Next.js itself needs its server; `server-only` throws wherever it does not find that.
      build.onResolve({ filter: /^next\/(headers|server)(\.js)?$/ }, ({ path }) => ({ path: join(sdk, `src/${path.replace(".js", "")}.ts`) }));
      build.onResolve({ filter: /^server-only$/ }, () => makeUp("server-only", "export {};"));

      // The package's own `Realtime` comes along where it is installed; its `handle` serves streams, which the gateway does.
      build.onResolve({ filter: /^@upstash\/realtime$/ }, async (args) => {
        if (args.pluginData?.mine) return undefined;
        const real = await build.resolve(args.path, { ...again(args) });
        const stand = JSON.stringify(join(sdk, "src/realtime.ts"));
        const handle = JSON.stringify(join(sdk, "src/handle.ts"));
        if (real.errors.length > 0) return makeUp("@upstash/realtime", `export * from ${stand};`);
        return makeUp("@upstash/realtime", `export * from ${JSON.stringify(real.path)};\nexport { handle } from ${handle};`);
      });

      build.onResolve({ filter: /^(node:)?[a-z_]+(\/[a-z_]+)?$/ }, async (args) => {
        const name = args.path.replace(/^node:/, "");
        if (!BUILTIN.has(name) || args.pluginData?.mine) return undefined;
        if (!args.path.startsWith("node:")) {
          // Packages of the same name, such as `buffer`.
          const own = await build.resolve(args.path, { ...again(args) });
          if (own.errors.length === 0) return own;
        }
        if (name === "buffer") return build.resolve("buffer/", { ...again(args), resolveDir: modules });
        if (args.importer.includes("node_modules")) {
          missing.set(args.path, args.importer);
          return makeUp(`node:${name}`, missingModule(name));
        }
        const instead = INSTEAD[name] ? `: ${INSTEAD[name]}` : "";
        return { errors: [{ text: `${JSON.stringify(args.path)} is a module of Node, and a policy does not run on Node${instead}` }] };
      });
    },
  };
  return { plugin, virtual, warnings };
}

/** The options to resolve the same import once more, past the plugin. */
function again({ importer, namespace, resolveDir, kind }) {
  return { importer, namespace: namespace === "tidegate" ? "file" : namespace, resolveDir, kind, pluginData: { mine: true } };
}

/** Stands in for a module of Node that a package imports, and may well never use. */
function missingModule(name) {
  return `
    const gone = (what) => new Error(\`node:${name} is a module of Node, and a policy does not run on Node: \${what} is not there\`);
    const plain = new Set(["__esModule", "then", "default"]);
    module.exports = new Proxy({}, {
      get(_, key) {
        if (typeof key === "symbol" || plain.has(key)) return key === "default" ? module.exports : undefined;
        return function () { throw gone(key); };
      },
    });
  `;
}
