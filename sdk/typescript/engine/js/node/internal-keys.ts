// `KeyObject` of `node:crypto`, and the formats of keys.
declare const module: { exports: unknown };
// biome-ignore lint: the module is CommonJS, which has no types here.
declare function require(name: string): any;

const { bytesOf, native, output, withCode } = require("./internal-crypto.ts");

/** The types of Node by family. */
const TYPES: Record<string, string> = { RSA: "rsa", "P-256": "ec", "P-384": "ec", "P-521": "ec", Ed25519: "ed25519", X25519: "x25519" };
const CURVES: Record<string, string> = { "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1" };

/** Members of a JSON Web Key, in the order of the natives; those after the public ones are private. */
const RSA_MEMBERS = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];
const membersOf = (family: string) => (family === "RSA" ? RSA_MEMBERS : TYPES[family] === "ec" ? ["x", "y", "d"] : ["x", "d"]);
const publicCount = (family: string) => (TYPES[family] === "ec" || family === "RSA" ? 2 : 1);

type Jwk = Record<string, string | undefined>;

class KeyObject {
  readonly type: "secret" | "public" | "private";
  readonly #family: string;
  readonly #bytes: Uint8Array;

  constructor(type: "secret" | "public" | "private", family: string, bytes: Uint8Array) {
    this.type = type;
    this.#family = family;
    this.#bytes = bytes;
  }

  get [Symbol.toStringTag](): string {
    return "KeyObject";
  }

  /** `RSA`, or the name of the curve; empty for a secret. */
  static familyOf(key: KeyObject): string {
    return key.#family;
  }

  static bytesOf(key: KeyObject): Uint8Array {
    return key.#bytes;
  }

  get symmetricKeySize(): number | undefined {
    return this.type === "secret" ? this.#bytes.length : undefined;
  }

  get asymmetricKeyType(): string | undefined {
    return this.type === "secret" ? undefined : TYPES[this.#family];
  }

  get asymmetricKeyDetails(): object | undefined {
    if (this.type === "secret") return undefined;
    if (this.#family !== "RSA") return TYPES[this.#family] === "ec" ? { namedCurve: CURVES[this.#family] } : {};
    const [n = "", e = ""] = native.keyExportJwk("RSA", this.#bytes, this.type === "private");
    const modulus = Buffer.from(n, "base64url");
    return {
      modulusLength: modulus.length * 8 - Math.clz32((modulus[0] ?? 0) << 24),
      publicExponent: BigInt(`0x${Buffer.from(e, "base64url").toString("hex")}`),
    };
  }

  equals(other: KeyObject): boolean {
    return this.type === other.type && this.#family === other.#family && native.equal(this.#bytes, other.#bytes);
  }

  export({ format, type }: { format?: string; type?: string } = {}): unknown {
    const isPrivate = this.type === "private";
    if (format === "jwk") {
      if (this.type === "secret") return { kty: "oct", k: output(this.#bytes, "base64url") };
      const values: string[] = native.keyExportJwk(this.#family, this.#bytes, isPrivate);
      const members = Object.fromEntries(values.map((value, at) => [membersOf(this.#family)[at], value]));
      const kind = TYPES[this.#family] === "ec" ? { kty: "EC", crv: this.#family } : this.#family === "RSA" ? { kty: "RSA" } : { kty: "OKP", crv: this.#family };
      return { ...members, ...kind };
    }
    if (this.type === "secret") return output(this.#bytes);
    const isTraditional = type === "pkcs1" || type === "sec1";
    const der = native.keyExport(this.#family, isTraditional ? "traditional" : isPrivate ? "pkcs8" : "spki", this.#bytes);
    if (format !== "pem") return output(der);
    const label = `${isTraditional ? (type === "sec1" ? "EC " : "RSA ") : ""}${isPrivate ? "PRIVATE" : "PUBLIC"} KEY`;
    const lines = (output(der, "base64") as string).match(/.{1,64}/g)?.join("\n");
    return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
  }
}

/** What `createPublicKey` and `createPrivateKey` accept: PEM, or an object with a key and its format. */
type KeyInput = unknown;

function createSecretKey(key: string | Uint8Array, encoding?: string): KeyObject {
  return new KeyObject("secret", "", bytesOf(key, encoding).slice());
}

function createPublicKey(input: KeyInput): KeyObject {
  const key = keyOf(input, "public");
  if (key.type === "secret") throw withCode(new TypeError("a secret key is not a public key"), "ERR_CRYPTO_INVALID_KEY_OBJECT_TYPE");
  if (key.type === "public") return key;
  const family = KeyObject.familyOf(key);
  return new KeyObject("public", family, native.keyPublic(family, KeyObject.bytesOf(key)));
}

function createPrivateKey(input: KeyInput): KeyObject {
  const key = keyOf(input, "private");
  if (key.type !== "private") throw withCode(new TypeError("the key is not a private key"), "ERR_OSSL_UNSUPPORTED");
  return key;
}

/** A key of any kind. */
function keyOf(input: KeyInput, wanted: "public" | "private"): KeyObject {
  if (input instanceof KeyObject) return input;
  const isBytes = typeof input === "string" || input instanceof ArrayBuffer || ArrayBuffer.isView(input);
  if (isBytes) return fromPem(typeof input === "string" ? input : Buffer.from(bytesOf(input)).toString(), wanted);
  const { key, format = "pem", type } = (input ?? {}) as { key?: unknown; format?: string; type?: string };
  if (key instanceof KeyObject) return key;
  if (format === "jwk") return fromJwk(key as Jwk);
  if (format === "der") {
    const der = bytesOf(key as Uint8Array);
    if (type === "pkcs1") return new KeyObject(wanted, "RSA", native.keyImport("RSA", "traditional", der));
    if (type === "sec1") return fromSec1(der);
    return fromDer(wanted === "public" && type !== "pkcs8" ? "spki" : "pkcs8", der);
  }
  if (key === undefined) throw withCode(new TypeError("a key is a string, a buffer or an object with `key`"), "ERR_INVALID_ARG_TYPE");
  return fromPem(typeof key === "string" ? key : Buffer.from(bytesOf(key as Uint8Array)).toString(), wanted);
}

function fromDer(format: string, der: Uint8Array): KeyObject {
  const family = native.keyFamily(format, der);
  return new KeyObject(format === "spki" ? "public" : "private", family, native.keyImport(family, format, der));
}

/** Object identifiers of curves in DER, in hexadecimal digits. */
const IDENTIFIERS = { "P-256": "06082a8648ce3d030107", "P-384": "06052b81040022", "P-521": "06052b81040023" };

function fromSec1(der: Uint8Array): KeyObject {
  const text = output(der, "hex") as string;
  const [family] = Object.entries(IDENTIFIERS).find(([, identifier]) => text.includes(identifier)) ?? [];
  if (!family) throw withCode(new Error("unsupported: the curve of the key"), "ERR_OSSL_UNSUPPORTED");
  return new KeyObject("private", family, native.keyImport(family, "traditional", der));
}

function fromPem(text: string, wanted: "public" | "private"): KeyObject {
  const [, label, body = ""] = /-----BEGIN ([A-Z ]+)-----([^-]+)-----END \1-----/.exec(text) ?? [];
  const der = Buffer.from(body, "base64");
  switch (label) {
    case "PUBLIC KEY":
      return fromDer("spki", der);
    case "CERTIFICATE":
      return fromDer("spki", native.spkiOfCertificate(der));
    case "PRIVATE KEY":
      return fromDer("pkcs8", der);
    case "RSA PUBLIC KEY":
      return new KeyObject("public", "RSA", native.keyImport("RSA", "traditional", der));
    case "RSA PRIVATE KEY":
      return new KeyObject("private", "RSA", native.keyImport("RSA", "traditional", der));
    case "EC PRIVATE KEY":
      return fromSec1(der);
  }
  throw withCode(new Error(`unsupported: not a ${wanted} key in the format PEM`), "ERR_OSSL_UNSUPPORTED");
}

function fromJwk(jwk: Jwk): KeyObject {
  const family = jwk.kty === "RSA" ? "RSA" : (jwk.crv ?? "");
  if (!TYPES[family]) throw withCode(new TypeError("the JSON Web Key is of an unsupported kind"), "ERR_CRYPTO_INVALID_JWK");
  const names = membersOf(family);
  const isPrivate = jwk.d !== undefined;
  const members = (isPrivate ? names : names.slice(0, publicCount(family))).map((name) => jwk[name] ?? "");
  return new KeyObject(isPrivate ? "private" : "public", family, native.keyImportJwk(family, members));
}

module.exports = { KeyObject, createPrivateKey, createPublicKey, createSecretKey, keyOf };
