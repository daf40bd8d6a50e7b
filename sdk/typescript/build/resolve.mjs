// Resolution of imports that differ from Node's.
import { builtinModules } from "node:module";
import { join } from "node:path";

const BUILTIN = new Set(builtinModules);

/** Alternatives to modules of Node. */
const ALTERNATIVES = {
  crypto: "use `crypto.subtle`, `crypto.randomUUID()` and `crypto.getRandomValues()`",
  fs: "a policy has no files: import the file, or read a setting from process.env",
  "fs/promises": "a policy has no files: import the file, or read a setting from process.env",
  path: "a policy has no files",
  http: "use `fetch`, which reaches the hosts that the operator allows",
  https: "use `fetch`, which reaches the hosts that the operator allows",
  net: "a policy has no sockets; use `fetch`, which reaches the hosts that the operator allows",
  tls: "a policy has no sockets; use `fetch`, which reaches the hosts that the operator allows",
  url: "`URL` and `URLSearchParams` are available without an import",
  util: "`TextEncoder`, `TextDecoder` and `structuredClone` are available without an import",
  timers: "`setTimeout` is available without an import",
  "timers/promises": "`setTimeout` is available without an import",
};

/** A plugin for esbuild, with its virtual modules and its warnings. */
export function resolver({ sdk, modules }) {
  /** Sources of the virtual modules, by their id in the metafile. */
  const virtual = new Map();
  const missing = new Map();
  const addVirtual = (path, contents) => {
    virtual.set(`tidegate:${path}`, contents);
    return { path, namespace: "tidegate" };
  };

  const warnings = () => [...missing].map(([name, importer]) => `${importer}: warning: imports ${name}, a module of Node: code that uses it throws`);
  const plugin = {
    name: "tidegate",
    setup(build) {
      build.onLoad({ filter: /.*/, namespace: "tidegate" }, ({ path }) => ({
        contents: virtual.get(`tidegate:${path}`),
        loader: "js",
        resolveDir: sdk,
      }));

      build.onResolve({ filter: /^@tidegate\/policy(\/.*)?$/ }, async (args) => {
        if (args.pluginData?.isRepeated) return undefined;
        const own = await build.resolve(args.path, repeat(args));
        if (own.errors.length === 0) return own;
        return { path: join(sdk, args.path.endsWith("/testing") ? "src/testing.ts" : "src/index.ts") };
      });

      // Next.js itself needs its server, and `server-only` throws without it.
      build.onResolve({ filter: /^next\/(headers|server)(\.js)?$/ }, ({ path }) => ({ path: join(sdk, `src/${path.replace(".js", "")}.ts`) }));
      build.onResolve({ filter: /^server-only$/ }, () => addVirtual("server-only", "export {};"));

      // The package's own `Realtime` is used where it is installed. Its `handle` serves streams, which is the gateway's task.
      build.onResolve({ filter: /^@upstash\/realtime$/ }, async (args) => {
        if (args.pluginData?.isRepeated) return undefined;
        const real = await build.resolve(args.path, repeat(args));
        const substitute = JSON.stringify(join(sdk, "src/realtime.ts"));
        const handle = JSON.stringify(join(sdk, "src/handle.ts"));
        if (real.errors.length > 0) return addVirtual("@upstash/realtime", `export * from ${substitute};`);
        return addVirtual("@upstash/realtime", `export * from ${JSON.stringify(real.path)};\nexport { handle } from ${handle};`);
      });

      build.onResolve({ filter: /^(node:)?[a-z_]+(\/[a-z_]+)?$/ }, async (args) => {
        const name = args.path.replace(/^node:/, "");
        if (!BUILTIN.has(name) || args.pluginData?.isRepeated) return undefined;
        if (!args.path.startsWith("node:")) {
          // A package with the same name, such as `buffer`.
          const own = await build.resolve(args.path, repeat(args));
          if (own.errors.length === 0) return own;
        }
        if (name === "buffer") return build.resolve("buffer/", { ...repeat(args), resolveDir: modules });
        if (args.importer.includes("node_modules")) {
          missing.set(args.path, args.importer);
          return addVirtual(`node:${name}`, missingModule(name));
        }
        const alternative = ALTERNATIVES[name] ? `: ${ALTERNATIVES[name]}` : "";
        return { errors: [{ text: `${JSON.stringify(args.path)} is a module of Node, and a policy does not run on Node${alternative}` }] };
      });
    },
  };
  return { plugin, virtual, warnings };
}

/** The options to resolve the same import again without this plugin. */
function repeat({ importer, namespace, resolveDir, kind }) {
  return { importer, namespace: namespace === "tidegate" ? "file" : namespace, resolveDir, kind, pluginData: { isRepeated: true } };
}

/** A substitute for a module of Node that a package imports but may not use. */
function missingModule(name) {
  return `
    const missing = (member) => new Error(\`node:${name} is a module of Node, and a policy does not run on Node: \${member} is not available\`);
    const plain = new Set(["__esModule", "then", "default"]);
    module.exports = new Proxy({}, {
      get(_, key) {
        if (typeof key === "symbol" || plain.has(key)) return key === "default" ? module.exports : undefined;
        return function () { throw missing(key); };
      },
    });
  `;
}
