// RSA in JavaScript: the engine needs tens of ms of CPU to import a key, because it tests whether the modulus is a prime.
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256, sha384, sha512 } from "@noble/hashes/sha2.js";
import { mgf1, OAEP, PKCS1_SHA1, PKCS1_SHA256, PKCS1_SHA384, PKCS1_SHA512, PSS } from "micro-rsa-dsa-dh/rsa.js";
import { privateKey, publicKey, sequence } from "./der.ts";
import { bytesOf, fail, fromBase64Url, hashName, toBase64Url, type Algorithm, type Material, type Params } from "./key.ts";

const ID = "2a864886f70d010101";
const HASHES = { "SHA-1": sha1, "SHA-256": sha256, "SHA-384": sha384, "SHA-512": sha512 };
const PKCS1 = { "SHA-1": PKCS1_SHA1, "SHA-256": PKCS1_SHA256, "SHA-384": PKCS1_SHA384, "SHA-512": PKCS1_SHA512 };

type Hash = keyof typeof HASHES;
const hashOf = (key: Material) => (key.algorithm.hash as { name: Hash }).name;
const number = (bytes: Uint8Array) => BigInt(`0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") || "0"}`);
const open = ({ jwk }: Material) => ({ n: number(fromBase64Url(jwk?.n)), e: number(fromBase64Url(jwk?.e)) });
const closed = ({ jwk }: Material) => ({ n: number(fromBase64Url(jwk?.n)), d: number(fromBase64Url(jwk?.d)) });

const signing = { public: ["verify"], private: ["sign"] } satisfies Algorithm["usages"];

export const rsaPkcs1: Algorithm = {
  usages: signing,
  import: importKey,
  sign: (_, key, data) => PKCS1[hashOf(key)].sign(closed(key), data),
  verify: (_, key, signature, data) => isValid(() => PKCS1[hashOf(key)].verify(open(key), data, signature)),
};

export const rsaPss: Algorithm = {
  usages: signing,
  import: importKey,
  sign: (params, key, data) => pss(params, key).sign(closed(key), data),
  verify: (params, key, signature, data) => isValid(() => pss(params, key).verify(open(key), data, signature)),
};

export const rsaOaep: Algorithm = {
  usages: { public: ["encrypt", "wrapKey"], private: ["decrypt", "unwrapKey"] },
  import: importKey,
  encrypt: (params, key, data) => oaep(params, key).encrypt(open(key), data),
  decrypt(params, key, data) {
    try {
      return oaep(params, key).decrypt(closed(key), data);
    } catch {
      throw fail("OperationError", "the data could not be decrypted");
    }
  },
};

function pss({ saltLength }: Params, key: Material) {
  const hash = HASHES[hashOf(key)];
  return PSS(hash, mgf1(hash), Number(saltLength));
}

function oaep({ label }: Params, key: Material) {
  const hash = HASHES[hashOf(key)];
  return OAEP(hash, mgf1(hash), label === undefined ? undefined : bytesOf(label));
}

/** Returns false for malformed signatures. */
function isValid(check: () => boolean): boolean {
  try {
    return check();
  } catch {
    return false;
  }
}

function importKey(format: KeyFormat, data: Uint8Array | JsonWebKey, params: Params): Material {
  const check = ({ ids, key }: { ids: string[]; key: Uint8Array }) => {
    if (ids[0] !== ID) throw fail("DataError", "the key is not an RSA key");
    return sequence(key).map(({ bytes }) => toBase64Url(bytes[0] === 0 ? bytes.subarray(1) : bytes));
  };
  const bytes = data as Uint8Array;
  switch (format) {
    case "jwk":
      if ((data as JsonWebKey).kty !== "RSA") throw fail("DataError", "the JSON Web Key is not an RSA key");
      return material(data as JsonWebKey, params);
    case "spki": {
      const [n, e] = check(publicKey(bytes));
      return { ...material({ n, e }, params), der: { format, bytes } };
    }
    case "pkcs8": {
      const [, n, e, d, p, q, dp, dq, qi] = check(privateKey(bytes));
      return { ...material({ n, e, d, p, q, dp, dq, qi }, params), der: { format, bytes } };
    }
    default:
      throw fail("NotSupportedError", `RSA keys cannot be imported as ${format}`);
  }
}

function material({ n, e, d, p, q, dp, dq, qi }: JsonWebKey, { name, hash }: Params): Material {
  const modulus = fromBase64Url(n);
  const publicExponent = fromBase64Url(e);
  const jwk: JsonWebKey = { kty: "RSA", n, e, ...(d === undefined ? {} : { d, p, q, dp, dq, qi }) };
  const algorithm = { name, hash: { name: hashName(hash) }, modulusLength: modulus.length * 8, publicExponent };
  return { type: d === undefined ? "public" : "private", jwk, algorithm };
}
