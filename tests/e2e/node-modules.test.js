// The substitutes of Node's modules in policies: the same results as Node's own modules.
import assert from "node:assert/strict";
import * as nodeCrypto from "node:crypto";
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

/** The natives of the engine, by Node's own cryptography: keys are SPKI or PKCS #8. The engine's tests test the real ones. */
function natives() {
  const hash = (name) => name.toLowerCase().replace("-", "");
  const families = { rsa: "RSA", ec: (details) => ({ prime256v1: "P-256", secp384r1: "P-384", secp521r1: "P-521" })[details.namedCurve], ed25519: "Ed25519" };
  const familyOf = ({ asymmetricKeyType: type, asymmetricKeyDetails: details }) => (typeof families[type] === "string" ? families[type] : families[type](details));
  const open = (bytes, isPrivate) =>
    isPrivate ? nodeCrypto.createPrivateKey({ key: Buffer.from(bytes), format: "der", type: "pkcs8" }) : nodeCrypto.createPublicKey({ key: Buffer.from(bytes), format: "der", type: "spki" });
  const close = (key) => key.export({ format: "der", type: key.type === "private" ? "pkcs8" : "spki" });
  const options = ([algorithm, family], salt) => ({
    ...(algorithm === "RSA-PSS" ? { padding: nodeCrypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: salt < 0 ? nodeCrypto.constants.RSA_PSS_SALTLEN_AUTO : salt } : {}),
    ...(family.startsWith("P-") ? { dsaEncoding: "ieee-p1363" } : {}),
  });
  const members = { RSA: ["n", "e", "d", "p", "q", "dp", "dq", "qi"], Ed25519: ["x", "d"] };
  return {
    equal: (left, right) => nodeCrypto.timingSafeEqual(left, right),
    digest: (name, data) => nodeCrypto.createHash(hash(name)).update(data).digest(),
    hmac: (name, key, data) => nodeCrypto.createHmac(hash(name), key).update(data).digest(),
    hkdf: (name, ...rest) => new Uint8Array(nodeCrypto.hkdfSync(hash(name), ...rest)),
    pbkdf2: (name, password, salt, iterations, length) => nodeCrypto.pbkdf2Sync(password, salt, iterations, length, hash(name)),
    scrypt: (password, salt, [N, r, p], length) => nodeCrypto.scryptSync(password, salt, length, { N, r, p }),
    aesCbc(encrypts, key, iv, data, padding) {
      const cipher = (encrypts ? nodeCrypto.createCipheriv : nodeCrypto.createDecipheriv)(`aes-${key.length * 8}-cbc`, key, iv).setAutoPadding(padding);
      return Buffer.concat([cipher.update(data), cipher.final()]);
    },
    aesGcm(encrypts, key, iv, additional, tagLength, data) {
      const cipher = (encrypts ? nodeCrypto.createCipheriv : nodeCrypto.createDecipheriv)(`aes-${key.length * 8}-gcm`, key, iv).setAAD(additional);
      if (!encrypts) cipher.setAuthTag(data.subarray(data.length - tagLength));
      const result = Buffer.concat([cipher.update(encrypts ? data : data.subarray(0, data.length - tagLength)), cipher.final()]);
      return encrypts ? Buffer.concat([result, cipher.getAuthTag()]) : result;
    },
    keyFamily: (format, der) => familyOf(open(der, format === "pkcs8")),
    keyImport(family, format, der) {
      if (format !== "traditional") return close(open(der, format === "pkcs8"));
      if (family !== "RSA") return close(nodeCrypto.createPrivateKey({ key: der, format: "der", type: "sec1" }));
      try {
        return close(nodeCrypto.createPrivateKey({ key: der, format: "der", type: "pkcs1" }));
      } catch {
        return close(nodeCrypto.createPublicKey({ key: der, format: "der", type: "pkcs1" }));
      }
    },
    keyExport: (_, format, key) => (format === "traditional" ? open(key, true).export({ format: "der", type: "sec1" }) : key),
    keyExportJwk(family, key, isPrivate) {
      const jwk = open(key, isPrivate).export({ format: "jwk" });
      return (members[family] ?? ["x", "y", "d"]).map((name) => jwk[name]).filter((it) => it !== undefined);
    },
    keyImportJwk(family, values) {
      const jwk = Object.fromEntries(values.map((value, at) => [(members[family] ?? ["x", "y", "d"])[at], value]));
      const kind = family === "RSA" ? { kty: "RSA" } : family === "Ed25519" ? { kty: "OKP", crv: family } : { kty: "EC", crv: family };
      const key = { key: { ...jwk, ...kind }, format: "jwk" };
      return close(jwk.d ? nodeCrypto.createPrivateKey(key) : nodeCrypto.createPublicKey(key));
    },
    keyPublic: (_, key) => close(nodeCrypto.createPublicKey(open(key, true))),
    spkiOfCertificate: (der) => new nodeCrypto.X509Certificate(der).publicKey.export({ format: "der", type: "spki" }),
    sign: (names, salt, key, data) => nodeCrypto.sign(names[2] ? hash(names[2]) : null, data, { key: open(key, true), ...options(names, salt) }),
    verify: (names, salt, key, data, signature) => nodeCrypto.verify(names[2] ? hash(names[2]) : null, data, { key: open(key, false), ...options(names, salt) }, signature),
  };
}
Object.defineProperty(crypto, Symbol.for("tidegate.crypto"), { value: natives() });

const pairs = {
  rsa: nodeCrypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
  "P-256": nodeCrypto.generateKeyPairSync("ec", { namedCurve: "P-256" }),
  "P-521": nodeCrypto.generateKeyPairSync("ec", { namedCurve: "P-521" }),
  ed: nodeCrypto.generateKeyPairSync("ed25519"),
};
const pem = (pair, type, format) => pair[`${type}Key`].export({ format: "pem", type: format });

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
  crypto: {
    hashes: (it) => ["md5", "sha1", "SHA256", "RSA-SHA384", "sha512"].map((name) => it.createHash(name).update("a").update("ü", "latin1").digest("hex")),
    copies: (it) => {
      const hash = it.createHash("sha256").update("a");
      const copy = hash.copy().update("b").digest("base64");
      return [hash.digest().toString("hex"), copy, outcome(() => hash.digest()), outcome(() => it.createHash("whirl"))[0]];
    },
    hmac: (it) => [it.createHmac("sha256", "key").update("text").digest("base64url"), it.createHmac("sha512", it.createSecretKey(Buffer.from("key"))).update("text").digest("hex")],
    equal: (it) => [it.timingSafeEqual(Buffer.from("a"), Buffer.from("a")), it.timingSafeEqual(Buffer.from("a"), Buffer.from("b")), outcome(() => it.timingSafeEqual(Buffer.from("a"), Buffer.from("ab")))],
    random: async (it) => {
      const bytes = await new Promise((resolve) => it.randomBytes(8, (_, value) => resolve(value)));
      const numbers = Array.from({ length: 100 }, () => it.randomInt(3, 6));
      return [it.randomBytes(100_000).length, bytes.length, Math.min(...numbers), Math.max(...numbers), it.randomUUID().length];
    },
    derived: (it) => [it.pbkdf2Sync("p", "s", 10, 20, "sha256").toString("hex"), it.scryptSync("p", "s", 16, { N: 16 }).toString("hex"), Buffer.from(it.hkdfSync("sha256", "k", "s", "i", 20)).toString("hex")],
    ciphers(it) {
      const [key, iv] = [Buffer.alloc(32, 1), Buffer.alloc(12, 2)];
      const cipher = it.createCipheriv("aes-256-gcm", key, iv).setAAD(Buffer.from("aad"));
      const sealed = cipher.update("secret", "utf8", "hex") + cipher.final("hex");
      const open = (tag) => {
        const decipher = it.createDecipheriv("aes-256-gcm", key, iv).setAAD(Buffer.from("aad")).setAuthTag(tag);
        return decipher.update(sealed, "hex", "utf8") + decipher.final("utf8");
      };
      const cbc = it.createCipheriv("aes-128-cbc", Buffer.alloc(16), Buffer.alloc(16));
      return [sealed, cipher.getAuthTag().toString("hex"), open(cipher.getAuthTag()), outcome(() => open(Buffer.alloc(16)))[0], cbc.update("a", "utf8", "hex") + cbc.final("hex")];
    },
    keys: (it) =>
      Object.values(pairs).flatMap((pair) => {
        const [publicKey, privateKey] = [it.createPublicKey(pem(pair, "public", "spki")), it.createPrivateKey(pem(pair, "private", "pkcs8"))];
        const derived = it.createPublicKey(pem(pair, "private", "pkcs8"));
        const { kty, crv, n, x } = publicKey.export({ format: "jwk" });
        const again = it.createPublicKey({ key: privateKey.export({ format: "jwk" }), format: "jwk" });
        return [publicKey, privateKey, derived].map((key) => [key.type, key.asymmetricKeyType, key.asymmetricKeyDetails]).concat([
          [kty, crv, n, x, publicKey.export({ format: "pem", type: "spki" }), derived.equals(publicKey), again.equals(publicKey), derived.equals(privateKey)],
        ]);
      }),
    "other formats": (it) => [
      it.createPrivateKey(pem(pairs.rsa, "private", "pkcs1")).asymmetricKeyType,
      it.createPublicKey(pem(pairs.rsa, "public", "pkcs1")).asymmetricKeyType,
      it.createPrivateKey(pem(pairs["P-521"], "private", "sec1")).asymmetricKeyDetails,
      it.createSecretKey("616263", "hex").symmetricKeySize,
      outcome(() => it.createPublicKey("nothing"))[0],
      outcome(() => it.createPublicKey({}))[0],
    ],
    // Signatures are checked by Node, and the other way round.
    signatures: (it) =>
      [
        ["RSA-SHA256", pairs.rsa, {}],
        ["sha384", pairs.rsa, { padding: it.constants.RSA_PKCS1_PSS_PADDING, saltLength: it.constants.RSA_PSS_SALTLEN_DIGEST }],
        ["SHA256", pairs["P-256"], {}],
        ["SHA512", pairs["P-521"], { dsaEncoding: "ieee-p1363" }],
      ].flatMap(([hash, pair, options]) => {
        const [privateKey, publicKey] = [{ key: pem(pair, "private", "pkcs8"), ...options }, { key: pem(pair, "public", "spki"), ...options }];
        const mine = it.createSign(hash).update("te").update("xt").sign(privateKey, "base64");
        const theirs = nodeCrypto.createSign(hash).update("text").sign(privateKey);
        return [
          nodeCrypto.createVerify(hash).update("text").verify(publicKey, mine, "base64"),
          it.createVerify(hash).update("text").verify(publicKey, theirs),
          it.createVerify(hash).update("texts").verify(publicKey, theirs),
          it.createVerify(hash).update("text").verify(publicKey, theirs.with(-1, theirs.at(-1) ^ 1)),
        ];
      }),
    "one-shot signatures": (it) => {
      const signature = it.sign(null, Buffer.from("text"), pem(pairs.ed, "private", "pkcs8"));
      return [signature.toString("hex"), it.verify(null, Buffer.from("text"), pem(pairs.ed, "public", "spki"), signature), it.verify(null, Buffer.from("no"), pem(pairs.ed, "public", "spki"), signature)];
    },
  },
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
    if (!file.startsWith("internal-")) require(`node:${file.replace(".ts", "").replace("-", "/")}`);
    assert.ok(load(file), file);
  }
});
