// `node:crypto`, by the natives of `crypto.subtle`: hashes, randomness, keys, signatures and AES, without streams.
declare const module: { exports: unknown };
// biome-ignore lint: the module is CommonJS, which has no types here.
declare function require(name: string): any;

const { Parts, bytesOf, hashOf, native, output, withCode } = require("./internal-crypto.ts");
const { KeyObject, createPrivateKey, createPublicKey, createSecretKey } = require("./internal-keys.ts");

type Data = string | Uint8Array;
type Callback<Value> = (error: Error | null, value?: Value) => void;

class Hash {
  readonly #compute: (data: Uint8Array) => Uint8Array;
  readonly #parts: InstanceType<typeof Parts>;
  #isFinal = false;

  constructor(compute: (data: Uint8Array) => Uint8Array, parts = new Parts()) {
    this.#compute = compute;
    this.#parts = parts;
  }

  update(data: Data, encoding?: string): this {
    if (this.#isFinal) throw withCode(new Error("Digest already called"), "ERR_CRYPTO_HASH_FINALIZED");
    this.#parts.add(data, encoding);
    return this;
  }

  digest(encoding?: string): Buffer | string {
    if (this.#isFinal) throw withCode(new Error("Digest already called"), "ERR_CRYPTO_HASH_FINALIZED");
    this.#isFinal = true;
    return output(this.#compute(this.#parts.all()), encoding);
  }

  copy(): Hash {
    return new Hash(this.#compute, this.#parts.copy());
  }
}

function createHash(name: string): Hash {
  const hash = hashOf(name);
  return new Hash((data) => native.digest(hash, data));
}

function createHmac(name: string, key: Data | InstanceType<typeof KeyObject>): Hash {
  const hash = hashOf(name);
  const bytes = key instanceof KeyObject ? KeyObject.bytesOf(key) : bytesOf(key).slice();
  return new Hash((data) => native.hmac(hash, bytes, data));
}

/** Settles a callback as Node does: later. */
function later<Value>(work: () => Value, callback: Callback<Value>): void {
  queueMicrotask(() => {
    let value: Value;
    try {
      value = work();
    } catch (error) {
      return callback(error as Error);
    }
    callback(null, value);
  });
}

/** The most bytes that the standard's function gives at once. */
const RANDOM_BYTES = 65_536;

function randomFillSync<Array extends ArrayBufferView>(array: Array, offset = 0, size = array.byteLength - offset): Array {
  const bytes = new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset + offset, size);
  for (let at = 0; at < size; at += RANDOM_BYTES) crypto.getRandomValues(bytes.subarray(at, at + RANDOM_BYTES));
  return array;
}

function randomBytes(size: number, callback?: Callback<Buffer>): Buffer | undefined {
  const make = () => randomFillSync(Buffer.alloc(size));
  if (!callback) return make();
  later(make, callback);
  return undefined;
}

function randomInt(from: number, to?: number): number {
  const [min, max] = to === undefined ? [0, from] : [from, to];
  const range = max - min;
  if (!(range > 0 && range <= 2 ** 48)) throw withCode(new RangeError(`the range ${min} to ${max} is not valid`), "ERR_OUT_OF_RANGE");
  // Values above the last multiple of the range would make small ones more likely.
  const limit = 2 ** 48 - (2 ** 48 % range);
  for (;;) {
    const value = (randomBytes(6) as Buffer).readUIntBE(0, 6);
    if (value < limit) return min + (value % range);
  }
}

function timingSafeEqual(left: Uint8Array, right: Uint8Array): boolean {
  if (left.byteLength !== right.byteLength) {
    throw withCode(new RangeError("Input buffers must have the same byte length"), "ERR_CRYPTO_TIMING_SAFE_EQUAL_LENGTH");
  }
  return native.equal(left, right);
}

function pbkdf2Sync(password: Data, salt: Data, iterations: number, length: number, hash: string): Buffer {
  return output(native.pbkdf2(hashOf(hash), bytesOf(password), bytesOf(salt), iterations, length)) as Buffer;
}

interface Cost {
  N?: number;
  r?: number;
  p?: number;
  cost?: number;
  blockSize?: number;
  parallelization?: number;
}

function scryptSync(password: Data, salt: Data, length: number, options: Cost = {}): Buffer {
  const cost = [options.N ?? options.cost ?? 16_384, options.r ?? options.blockSize ?? 8, options.p ?? options.parallelization ?? 1];
  return output(native.scrypt(bytesOf(password), bytesOf(salt), cost, length)) as Buffer;
}

function hkdfSync(hash: string, secret: Data, salt: Data, info: Data, length: number): ArrayBuffer {
  const key = secret instanceof KeyObject ? KeyObject.bytesOf(secret) : bytesOf(secret);
  return native.hkdf(hashOf(hash), key, bytesOf(salt), bytesOf(info), length).slice().buffer;
}

module.exports = {
  Hash,
  Hmac: Hash,
  KeyObject,
  ...require("./internal-ciphers.ts"),
  ...require("./internal-signatures.ts"),
  constants: { RSA_PKCS1_PADDING: 1, RSA_PKCS1_OAEP_PADDING: 4, RSA_PKCS1_PSS_PADDING: 6, RSA_PSS_SALTLEN_DIGEST: -1, RSA_PSS_SALTLEN_MAX_SIGN: -2, RSA_PSS_SALTLEN_AUTO: -2 },
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  getCiphers: () => ["128", "192", "256"].flatMap((bits) => ["gcm", "cbc", "ctr"].map((mode) => `aes-${bits}-${mode}`)),
  getHashes: () => ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"],
  getRandomValues: <Array extends ArrayBufferView>(array: Array) => crypto.getRandomValues(array as never),
  hash: (name: string, data: Data, encoding = "hex") => createHash(name).update(data).digest(encoding),
  hkdf: (...args: [string, Data, Data, Data, number, Callback<ArrayBuffer>]) => later(() => hkdfSync(...(args.slice(0, 5) as [string, Data, Data, Data, number])), args[5]),
  hkdfSync,
  pbkdf2: (...args: [Data, Data, number, number, string, Callback<Buffer>]) => later(() => pbkdf2Sync(...(args.slice(0, 5) as [Data, Data, number, number, string])), args[5]),
  pbkdf2Sync,
  randomBytes,
  randomFillSync,
  randomInt,
  randomUUID: () => crypto.randomUUID(),
  scrypt(password: Data, salt: Data, length: number, options: Cost | Callback<Buffer>, callback?: Callback<Buffer>) {
    const [cost, done] = typeof options === "function" ? [{}, options] : [options, callback as Callback<Buffer>];
    later(() => scryptSync(password, salt, length, cost), done);
  },
  scryptSync,
  subtle: crypto.subtle,
  timingSafeEqual,
  webcrypto: crypto,
};
