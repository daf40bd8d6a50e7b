// The substitutes of Node's modules in policies: the same results as Node's own modules.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as esbuild from "esbuild";
import { REPO } from "./lib/gateway.js";

const FOLDER = join(REPO, "sdk/typescript/engine/js/node");
const require = createRequire(import.meta.url);
const loaded = new Map();

/** Loads a substitute as a policy does: a module of CommonJS. */
function load(file) {
  if (!loaded.has(file)) {
    const { code } = esbuild.transformSync(readFileSync(join(FOLDER, file), "utf8"), { loader: "ts", format: "cjs" });
    const module = { exports: {} };
    loaded.set(file, module);
    new Function("require", "module", "exports", code)((name) => load(name.replace("./", "")), module, module.exports);
  }
  return loaded.get(file).exports;
}

const CASES = {
  assert: {
    ok: (it) => [() => it(1), () => it(0), () => it.equal(1, "1"), () => it.strictEqual(1, 1), () => it.deepEqual({ a: [1] }, { a: [1] })].map(outcome),
    throws: (it) => [() => it.throws(() => JSON.parse("{")), () => it.throws(() => 1), () => it.fail("no")].map(outcome),
  },
  async_hooks: {
    async nested({ AsyncLocalStorage }) {
      const storage = new AsyncLocalStorage();
      const inner = () => storage.run(2, async () => (await null, storage.getStore()));
      const outer = await storage.run(1, async () => [storage.getStore(), await inner(), storage.getStore(), storage.exit(() => storage.getStore())]);
      return [outer, storage.getStore()];
    },
  },
  buffer: { bytes: ({ Buffer, isUtf8 }) => [Buffer.from("aGk", "base64").toString(), isUtf8(Buffer.from("ü"))] },
  events: {
    emit(Emitter) {
      const seen = [];
      class Mine extends Emitter {}
      const it = new Mine();
      const second = (...args) => seen.push("second", ...args);
      it.once("a", () => seen.push("once")).on("a", second).prependListener("a", () => seen.push("first"));
      const emitted = [it.emit("a", 1), it.emit("a", 2), it.off("a", second).emit("a"), it.emit("nothing")];
      return [seen, emitted, it.listenerCount("a"), it.eventNames(), outcome(() => it.emit("error", new RangeError("x"))), it instanceof Emitter.EventEmitter];
    },
    once: async ({ EventEmitter, once }) => {
      const it = new EventEmitter();
      setTimeout(() => it.emit("done", 1, 2));
      return once(it, "done");
    },
    called(Emitter) {
      function Old() {
        Emitter.call(this);
      }
      require("node:util").inherits(Old, Emitter);
      const seen = [];
      new Old().on("a", (it) => seen.push(it)).emit("a", 1);
      return seen;
    },
  },
  path: {
    join: (it) => [it.join("a", "../b", "/c/"), it.join(""), it.normalize("/a/./../..//b/"), it.join("..", "a")],
    resolve: (it) => [it.resolve("/a/b", "../c"), it.resolve("/a", "/b/"), it.relative("/a/b/c", "/a/d"), it.relative("/a", "/a")],
    parts: (it) => ["/a/b.tar.gz", "a", "/a/", ".env", "/", "a/b", ""].map((path) => [it.basename(path), it.dirname(path), it.extname(path), it.isAbsolute(path)]),
    parse: (it) => [it.parse("/home/a.txt"), it.basename("a.txt", ".txt"), it.posix.sep],
  },
  querystring: {
    parse: (it) => ({ ...it.parse("a=1&b=%20+&a=2&c") }),
    stringify: (it) => it.stringify({ a: [1, 2], b: "ü &", c: undefined, d: true }),
  },
  stream: { extends: (it) => [new (class extends it.Transform {})() instanceof it.Readable, new it() instanceof require("node:stream") || new it() instanceof it.Stream] },
  string_decoder: {
    parts: ({ StringDecoder }) => {
      const decoder = new StringDecoder("utf8");
      return [decoder.write(Buffer.of(0xc3)), decoder.write(Buffer.of(0xbc)), decoder.end()];
    },
  },
  timers: { kinds: (it) => Object.entries(it).filter(([name]) => /^(set|clear)/.test(name)).map(([name, value]) => [name, typeof value]).sort() },
  url: {
    parse: (it) => {
      const { protocol, host, hostname, port, pathname, search, query, hash, auth, href } = it.parse("https://u:p@app.example:8080/a?b=1&c=2#d");
      return { protocol, host, hostname, port, pathname, search, query, hash, auth, href };
    },
    path: (it) => [it.parse("/a?b=1").pathname, it.parse("/a?b=1").query, it.parse("/a?b=1").host, { ...it.parse("/a?b=1", true).query }],
    resolve: (it) => [it.resolve("https://a.example/b/c", "../d"), it.format(new URL("https://a.example/?x")), it.fileURLToPath("file:///a%20b")],
  },
  util: {
    format: (it) => [it.format("%s is %d%% of %j", "a", "5", { b: 1 }), it.format("a", "b"), it.format("%%", 1), it.format()],
    inherits(it) {
      function Base() {}
      Base.prototype.hello = () => "hi";
      function Derived() {}
      it.inherits(Derived, Base);
      return [new Derived().hello(), Derived.super_ === Base];
    },
    promisify: async (it) => [await it.promisify((value, done) => done(null, value + 1))(1), await it.promisify((done) => done(new RangeError("no")))().catch((error) => error.name)],
    equal: (it) =>
      [[{ a: [1, new Date(1)] }, { a: [1, new Date(1)] }], [new Map([[1, 2]]), new Map([[1, 3]])], [new Set([1]), new Set([1])], [NaN, NaN], [[1], { 0: 1 }], [/a/g, /a/i]].map(([left, right]) =>
        it.isDeepStrictEqual(left, right),
      ),
    types: ({ types }) => [types.isDate(new Date()), types.isRegExp({}), types.isPromise(Promise.resolve()), types.isUint8Array(Buffer.of(1)), types.isNativeError(new TypeError())],
    callbackify: (it) => new Promise((resolve) => it.callbackify(async (value) => value)(3, (error, value) => resolve([error, value]))),
  },
};

function outcome(run) {
  try {
    run();
    return "fine";
  } catch (error) {
    return [error.name, error.code ?? null];
  }
}

for (const [name, cases] of Object.entries(CASES)) {
  describe(`node:${name}`, () => {
    for (const [what, run] of Object.entries(cases)) {
      test(what, async () => assert.deepEqual(await run(load(`${name}.ts`)), await run(require(`node:${name}`))));
    }
  });
}

test("every substitute is a module of Node, and loads", () => {
  for (const file of readdirSync(FOLDER)) {
    require(`node:${file.replace(".ts", "").replace("-", "/")}`);
    assert.ok(load(file), file);
  }
});
