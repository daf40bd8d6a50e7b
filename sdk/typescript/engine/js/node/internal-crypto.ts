// What the parts of `node:crypto` share.
declare const module: { exports: unknown };

type Bytes = ArrayBuffer | ArrayBufferView;
type Data = string | Bytes;

/** The natives of `js/native.d.ts` that these modules use; the platform keeps them on `crypto`. */
interface Natives {
  equal(left: Bytes, right: Bytes): boolean;
  digest(hash: string, data: Bytes): Uint8Array;
  hmac(hash: string, key: Bytes, data: Bytes): Uint8Array;
  hkdf(hash: string, secret: Bytes, salt: Bytes, info: Bytes, length: number): Uint8Array;
  pbkdf2(hash: string, password: Bytes, salt: Bytes, iterations: number, length: number): Uint8Array;
  scrypt(password: Bytes, salt: Bytes, cost: [n: number, r: number, p: number], length: number): Uint8Array;
  aesCbc(encrypt: boolean, key: Bytes, iv: Bytes, data: Bytes, padding: boolean): Uint8Array;
  aesCtr(key: Bytes, counter: Bytes, length: number, data: Bytes): Uint8Array;
  aesGcm(encrypt: boolean, key: Bytes, iv: Bytes, additionalData: Bytes, tagLength: number, data: Bytes): Uint8Array;
  keyFamily(format: string, der: Bytes): string;
  spkiOfCertificate(der: Bytes): Uint8Array;
  keyImport(family: string, format: string, key: Bytes): Uint8Array;
  keyExport(family: string, format: string, key: Bytes): Uint8Array;
  keyImportJwk(family: string, members: string[]): Uint8Array;
  keyExportJwk(family: string, key: Bytes, isPrivate: boolean): string[];
  keyPublic(family: string, privateKey: Bytes): Uint8Array;
  sign(names: [algorithm: string, family: string, hash: string], saltLength: number, privateKey: Bytes, data: Bytes): Uint8Array;
  verify(names: [algorithm: string, family: string, hash: string], saltLength: number, publicKey: Bytes, data: Bytes, signature: Bytes): boolean;
}

const native = (crypto as unknown as { [name: symbol]: Natives })[Symbol.for("tidegate.crypto")] as Natives;

function bytesOf(data: Data, encoding?: string): Uint8Array {
  if (typeof data === "string") return Buffer.from(data, (encoding ?? "utf8") as BufferEncoding);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  throw withCode(new TypeError("the data is neither a string, a buffer nor a typed array"), "ERR_INVALID_ARG_TYPE");
}

/** Bytes as a `Buffer`, or as text in an encoding. */
function output(bytes: Uint8Array, encoding?: string): Buffer | string {
  const buffer = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
  return encoding && encoding !== "buffer" ? buffer.toString(encoding as BufferEncoding) : buffer;
}

function withCode<E extends Error>(error: E, code: string): E {
  return Object.assign(error, { code });
}

const HASHES: Record<string, string | undefined> = {
  md5: "MD5",
  sha1: "SHA-1",
  sha224: "SHA-224",
  sha256: "SHA-256",
  sha384: "SHA-384",
  sha512: "SHA-512",
};

/** The standard's name of a hash: `sha256`, `SHA-256` and `RSA-SHA256` are the same. */
function hashOf(name: string): string {
  const found = HASHES[String(name).toLowerCase().replace(/^rsa-/, "").replace("-", "")];
  if (!found) throw withCode(new Error(`node:crypto: a policy has no hash ${name}`), "ERR_CRYPTO_INVALID_DIGEST");
  return found;
}

/** Collects the parts of `update`. */
class Parts {
  readonly #parts: Uint8Array[] = [];

  add(data: Data, encoding?: string): void {
    // A copy: the caller may change its bytes before the end.
    this.#parts.push(bytesOf(data, encoding).slice());
  }

  all(): Uint8Array {
    const [first = new Uint8Array(), ...rest] = this.#parts;
    return rest.length === 0 ? first : Buffer.concat(this.#parts);
  }

  copy(): Parts {
    const copy = new Parts();
    for (const part of this.#parts) copy.add(part);
    return copy;
  }
}

module.exports = { Parts, bytesOf, hashOf, native, output, withCode };
