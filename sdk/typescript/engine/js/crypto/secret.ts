// The algorithms with secret keys: AES, HMAC, HKDF and PBKDF2.
import { secretBytes, type Algorithm, type Params } from "./algorithm.ts";
import { buffer, fail, hash, octet, unsignedLong, unsignedShort, type Members } from "./normalize.ts";
import type { KeyParams, Material } from "./key.ts";

const LENGTHS = [128, 192, 256];
const TAG_LENGTHS = [32, 64, 96, 104, 112, 120, 128];
/** The block lengths of the hashes, which are the lengths of generated keys, in bits. */
const blockLength = (name: string) => (name === "SHA-1" || name === "SHA-256" ? 512 : 1024);

function aes(mode: string, cipher: NonNullable<Algorithm["cipher"]>, members: Members = {}): Algorithm {
  const name = `AES-${mode}`;
  const wrapsOnly = mode === "KW";
  const length = { length: unsignedShort };
  return {
    name,
    wrapsOnly,
    cipher,
    use: "enc",
    usages: { secret: wrapsOnly ? ["wrapKey", "unwrapKey"] : ["encrypt", "decrypt", "wrapKey", "unwrapKey"] },
    members: { importKey: {}, generateKey: length, getKeyLength: length, cipher: members },
    importKey(_, format, data) {
      const bytes = secretBytes(format, data, name);
      if (!LENGTHS.includes(bytes.length * 8)) throw fail("DataError", "Invalid key length");
      return { type: "secret", bytes, family: "", algorithm: { name, length: bytes.length * 8 } };
    },
    generateKey({ length }) {
      if (!LENGTHS.includes(length as number)) throw fail("OperationError", "AES key length must be 128, 192, or 256 bits");
      return { type: "secret", bytes: native.random((length as number) / 8), family: "", algorithm: { name, length: length as number } };
    },
    getKeyLength({ length }) {
      if (!LENGTHS.includes(length as number)) throw fail("OperationError", "Invalid key length");
      return length as number;
    },
    jwkName: (algorithm) => `A${algorithm.length}${mode}`,
  };
}

function blockOf(value: unknown, what: string): Uint8Array {
  const block = value as Uint8Array;
  if (block.length !== 16) throw fail("OperationError", `algorithm.${what} must contain exactly 16 bytes`);
  return block;
}

export const aesCbc = aes("CBC", ({ iv }, { bytes }, data, encrypt) => native.aesCbc(encrypt, bytes, blockOf(iv, "iv"), data, true), { iv: buffer });

export const aesCtr = aes(
  "CTR",
  ({ counter, length }, { bytes }, data) => native.aesCtr(bytes, blockOf(counter, "counter"), length as number, data),
  { counter: buffer, length: octet },
);

export const aesGcm = aes(
  "GCM",
  ({ iv, additionalData, tagLength = 128 }, { bytes }, data, encrypt) => {
    if (!TAG_LENGTHS.includes(tagLength as number)) throw fail("OperationError", `${tagLength} is not a valid AES-GCM tag length`);
    const additional = (additionalData as Uint8Array | undefined) ?? new Uint8Array();
    return native.aesGcm(encrypt, bytes, iv as Uint8Array, additional, (tagLength as number) / 8, data);
  },
  { iv: buffer, "tagLength?": octet, "additionalData?": buffer },
);

export const aesKw = aes("KW", (_, { bytes }, data, encrypt) => native.aesKw(encrypt, bytes, data));

export const hmac: Algorithm = {
  name: "HMAC",
  use: "sig",
  usages: { secret: ["sign", "verify"] },
  members: {
    importKey: { hash, "length?": unsignedLong },
    generateKey: { hash, "length?": unsignedLong },
    getKeyLength: { hash, "length?": unsignedLong },
    sign: {},
  },
  importKey({ hash, length }, format, data) {
    const bytes = secretBytes(format, data, "HMAC");
    if (bytes.length === 0 || length === 0) throw fail("DataError", "Zero-length key is not supported");
    if (length !== undefined && length !== bytes.length * 8) throw fail("DataError", "Invalid key length");
    return { type: "secret", bytes, family: "", algorithm: hmacKey(hash, bytes.length * 8) };
  },
  generateKey({ hash, length = blockLength(hash as string) }) {
    const bits = length as number;
    if (bits === 0 || bits % 8 !== 0) throw fail("OperationError", "the length must be a positive multiple of 8");
    return { type: "secret", bytes: native.random(bits / 8), family: "", algorithm: hmacKey(hash, bits) };
  },
  getKeyLength({ hash, length = blockLength(hash as string) }) {
    if (length === 0) throw fail("OperationError", "Invalid key length");
    return length as number;
  },
  jwkName: ({ hash }) => `HS${hash?.name.slice(4)}`,
  sign: (_, key, data) => native.hmac(hashOf(key), key.bytes, data),
  verify: (_, key, data, signature) => native.equal(native.hmac(hashOf(key), key.bytes, data), signature),
};

const hmacKey = (hash: unknown, length: number): KeyParams => ({ name: "HMAC", hash: { name: hash as string }, length });
const hashOf = (key: Material) => key.algorithm.hash?.name as string;

function kdf(name: string, members: Members, deriveBits: NonNullable<Algorithm["deriveBits"]>): Algorithm {
  return {
    name,
    usages: { secret: ["deriveKey", "deriveBits"] },
    members: { importKey: {}, deriveBits: members, getKeyLength: {} },
    importKey(_, format, data) {
      if (format !== "raw") throw fail("NotSupportedError", `Unable to import ${name} key with format ${format}`);
      return { type: "secret", bytes: (data as Uint8Array<ArrayBuffer>).slice(), family: "", algorithm: { name } };
    },
    getKeyLength: () => null,
    deriveBits(params, key, length) {
      if (length === null) throw fail("OperationError", "length cannot be null");
      if (length % 8 !== 0) throw fail("OperationError", "length must be a multiple of 8");
      return deriveBits(params, key, length);
    },
  };
}

export const hkdf = kdf("HKDF", { hash, salt: buffer, info: buffer }, ({ hash, salt, info }: Params, key, length) =>
  native.hkdf(hash as string, key.bytes, salt as Uint8Array, info as Uint8Array, (length as number) / 8),
);

export const pbkdf2 = kdf("PBKDF2", { hash, salt: buffer, iterations: unsignedLong }, ({ hash, salt, iterations }: Params, key, length) =>
  native.pbkdf2(hash as string, key.bytes, salt as Uint8Array, iterations as number, (length as number) / 8),
);
