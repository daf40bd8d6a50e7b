// Signatures of `node:crypto`.
declare const module: { exports: unknown };
// biome-ignore lint: the module is CommonJS, which has no types here.
declare function require(name: string): any;

const { Parts, bytesOf, hashOf, native, output } = require("./internal-crypto.ts");
const { KeyObject, createPrivateKey, createPublicKey } = require("./internal-keys.ts");

const PSS_PADDING = 6;
const SALT_OF_DIGEST = -1;
const HASH_SIZES: Record<string, number> = { "SHA-1": 20, "SHA-224": 28, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 };
const FIELD_SIZES: Record<string, number> = { "P-256": 32, "P-384": 48, "P-521": 66 };

/** Options that come with a key. */
interface Options {
  padding?: number;
  saltLength?: number;
  dsaEncoding?: "der" | "ieee-p1363";
}

const optionsOf = (key: unknown): Options => (typeof key === "object" && key !== null && !(key instanceof KeyObject) ? (key as Options) : {});

/** The algorithm of the standard for a key, and the length of the salt. */
function schemeOf(family: string, hash: string, { padding, saltLength = SALT_OF_DIGEST }: Options, isSigning: boolean): [names: string[], salt: number] {
  if (family === "Ed25519") return [["Ed25519", family, ""], -1];
  if (family !== "RSA") return [["ECDSA", family, hash], -1];
  if (padding !== PSS_PADDING) return [["RSASSA-PKCS1-v1_5", family, hash], -1];
  // A salt of any length is the default of Node when it verifies.
  const ofDigest = HASH_SIZES[hash] ?? 32;
  return [["RSA-PSS", family, hash], saltLength >= 0 ? saltLength : saltLength === SALT_OF_DIGEST || isSigning ? ofDigest : -1];
}

function signBytes(hash: string, data: Uint8Array, key: unknown): Uint8Array {
  const object = createPrivateKey(key);
  const family = KeyObject.familyOf(object);
  const options = optionsOf(key);
  const [names, salt] = schemeOf(family, hash, options, true);
  const signature = native.sign(names, salt, KeyObject.bytesOf(object), data);
  return names[0] === "ECDSA" && options.dsaEncoding !== "ieee-p1363" ? toDer(signature) : signature;
}

function verifyBytes(hash: string, data: Uint8Array, key: unknown, signature: Uint8Array): boolean {
  const object = createPublicKey(key);
  const family = KeyObject.familyOf(object);
  const options = optionsOf(key);
  const [names, salt] = schemeOf(family, hash, options, false);
  const raw = names[0] === "ECDSA" && options.dsaEncoding !== "ieee-p1363" ? fromDer(signature, FIELD_SIZES[family] ?? 0) : signature;
  return raw !== undefined && native.verify(names, salt, KeyObject.bytesOf(object), data, raw);
}

/** Two integers of a signature as DER. */
function toDer(signature: Uint8Array): Uint8Array {
  const size = signature.length / 2;
  const parts = [signature.subarray(0, size), signature.subarray(size)].map((part) => {
    let start = 0;
    while (start < part.length - 1 && part[start] === 0) start++;
    const isNegative = ((part[start] ?? 0) & 0x80) !== 0;
    const value = [...(isNegative ? [0] : []), ...part.subarray(start)];
    return [0x02, value.length, ...value];
  });
  const body = parts.flat();
  return Uint8Array.from([0x30, ...(body.length < 128 ? [body.length] : [0x81, body.length]), ...body]);
}

/** Two integers of fixed size, or nothing if it is not such a signature. */
function fromDer(der: Uint8Array, size: number): Uint8Array | undefined {
  let at = der[1] === 0x81 ? 3 : 2;
  if (der[0] !== 0x30 || der[at - 1] !== der.length - at) return undefined;
  const raw = new Uint8Array(size * 2);
  for (const end of [size, size * 2]) {
    const length = der[at + 1] ?? 0;
    let value = der.subarray(at + 2, at + 2 + length);
    if (der[at] !== 0x02 || length === 0 || value.length !== length) return undefined;
    while (value.length > size && value[0] === 0) value = value.subarray(1);
    if (value.length > size) return undefined;
    raw.set(value, end - value.length);
    at += 2 + length;
  }
  return at === der.length ? raw : undefined;
}

/** Data in parts, to be hashed. */
class Signed {
  protected readonly hash: string;
  protected readonly parts = new Parts();

  constructor(algorithm: string) {
    this.hash = hashOf(algorithm);
  }

  update(data: string | Uint8Array, encoding?: string): this {
    this.parts.add(data, encoding);
    return this;
  }
}

class Sign extends Signed {
  sign(key: unknown, encoding?: string): Buffer | string {
    return output(signBytes(this.hash, this.parts.all(), key), encoding);
  }
}

class Verify extends Signed {
  verify(key: unknown, signature: string | Uint8Array, encoding?: string): boolean {
    return verifyBytes(this.hash, this.parts.all(), key, bytesOf(signature, encoding));
  }
}

module.exports = {
  Sign,
  Verify,
  createSign: (algorithm: string) => new Sign(algorithm),
  createVerify: (algorithm: string) => new Verify(algorithm),
  sign: (algorithm: string | null | undefined, data: Uint8Array, key: unknown) => output(signBytes(algorithm ? hashOf(algorithm) : "", bytesOf(data), key)),
  verify: (algorithm: string | null | undefined, data: Uint8Array, key: unknown, signature: Uint8Array) =>
    verifyBytes(algorithm ? hashOf(algorithm) : "", bytesOf(data), key, bytesOf(signature)),
};
