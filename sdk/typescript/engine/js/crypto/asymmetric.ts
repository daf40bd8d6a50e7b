// The algorithms with pairs of keys: RSA, elliptic curves, Ed25519 and X25519.
import type { Algorithm, Bytes, Imported, Params } from "./algorithm.ts";
import { bigInteger, buffer, cryptoKey, fail, hash, text, unsignedLong } from "./normalize.ts";
import { materialOf, type CryptoKey, type KeyParams, type Material } from "./key.ts";

/** The members of JSON Web Keys: those of public keys, then those of private keys. */
const JWK = {
  RSA: { kty: "RSA", open: ["n", "e"], closed: ["d", "p", "q", "dp", "dq", "qi"] },
  EC: { kty: "EC", open: ["x", "y"], closed: ["d"] },
  OKP: { kty: "OKP", open: ["x"], closed: ["d"] },
} as const;

function jwkOf(family: string) {
  return family === "RSA" ? JWK.RSA : family.startsWith("P-") ? JWK.EC : JWK.OKP;
}

const SIGNING = { public: ["verify"], private: ["sign"] } satisfies Algorithm["usages"];
const AGREEING = { public: [], private: ["deriveKey", "deriveBits"] } satisfies Algorithm["usages"];

/** Reads a key of a family. */
function importPair(family: string, format: KeyFormat, data: Bytes | JsonWebKey): Omit<Imported, "algorithm"> {
  if (format !== "jwk") {
    if (format === "raw" && family === "RSA") throw fail("NotSupportedError", "Unable to import RSA key with format raw");
    return { type: format === "pkcs8" ? "private" : "public", bytes: native.keyImport(family, format, data as Bytes), family };
  }
  const jwk = data as Record<string, string | undefined>;
  const { kty, open, closed } = jwkOf(family);
  if (jwk.kty !== kty) throw fail("DataError", 'Invalid JWK "kty" Parameter');
  if (kty !== "RSA" && jwk.crv !== family) throw fail("DataError", 'JWK "crv" does not match the requested algorithm');
  if (jwk.oth !== undefined) throw fail("NotSupportedError", "RSA keys of more than two primes are not supported");
  const isPrivate = jwk.d !== undefined;
  const members = (isPrivate ? [...open, ...closed] : open).map((name) => {
    if (jwk[name] === undefined) throw fail("DataError", "Invalid keyData");
    return jwk[name];
  });
  return { type: isPrivate ? "private" : "public", bytes: native.keyImportJwk(family, members), family };
}

/** The members of a key's JSON Web Key. */
export function exportJwk({ family, bytes, type }: Pick<Material, "family" | "bytes" | "type">): JsonWebKey {
  const { kty, open, closed } = jwkOf(family);
  const values = native.keyExportJwk(family, bytes, type === "private");
  const names: readonly string[] = [...open, ...closed];
  return { kty, ...(kty === "RSA" ? {} : { crv: family }), ...Object.fromEntries(values.map((value, index) => [names[index], value])) };
}

function rsa(name: string, prefix: (hash: string) => string, own: Partial<Algorithm>): Algorithm {
  return {
    name,
    use: "sig",
    usages: SIGNING,
    importKey(params, format, data) {
      const imported = importPair("RSA", format, data);
      return { ...imported, algorithm: rsaKey(name, imported, params.hash) };
    },
    generateKey({ modulusLength, publicExponent }) {
      const exponent = (publicExponent as Uint8Array).reduce((number, byte) => number * 256 + byte, 0);
      if ((modulusLength as number) < 256 || exponent < 3 || exponent % 2 === 0) throw fail("OperationError", "RSA keys have an odd exponent of at least 3");
      throw fail("NotSupportedError", "RSA keys cannot be generated in a policy: it takes seconds. Import one");
    },
    jwkName: ({ hash }) => prefix(hash?.name.slice(4) as string),
    ...own,
    members: { importKey: { hash }, generateKey: { modulusLength: unsignedLong, publicExponent: bigInteger, hash }, ...own.members },
  };
}

function rsaKey(name: string, key: Omit<Imported, "algorithm">, hash: unknown): KeyParams {
  const open = key.type === "private" ? native.keyPublic("RSA", key.bytes) : key.bytes;
  const [n = "", e = ""] = native.keyExportJwk("RSA", open, false);
  const modulus = native.fromBase64Url(n);
  const modulusLength = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
  return { name, modulusLength, publicExponent: native.fromBase64Url(e), hash: { name: hash as string } };
}

/** Signs and verifies with the hash of the key or of the parameters. */
function signing(salted = false): Pick<Algorithm, "sign" | "verify"> {
  const names = (params: Params, key: Material): SignatureNames => [params.name, key.family, (params.hash as string) ?? key.algorithm.hash?.name ?? ""];
  const salt = (params: Params) => (salted ? (params.saltLength as number) : -1);
  return {
    sign: (params, key, data) => native.sign(names(params, key), salt(params), key.bytes, data),
    verify: (params, key, data, signature) => native.verify(names(params, key), salt(params), key.bytes, data, signature),
  };
}

export const rsaPkcs1 = rsa("RSASSA-PKCS1-v1_5", (hash) => `RS${hash}`, { ...signing(), members: { sign: {} } });

export const rsaPss = rsa("RSA-PSS", (hash) => `PS${hash}`, { ...signing(true), members: { sign: { saltLength } } });

/** No salt is longer than the longest modulus; the native takes a signed number. */
function saltLength(value: unknown, what: string): number {
  return Math.min(unsignedLong(value, what), 0xffff);
}

export const rsaOaep = rsa("RSA-OAEP", (hash) => (hash === "1" ? "RSA-OAEP" : `RSA-OAEP-${hash}`), {
  use: "enc",
  usages: { public: ["encrypt", "wrapKey"], private: ["decrypt", "unwrapKey"] },
  members: { cipher: { "label?": buffer } },
  cipher({ label }, key, data, encrypt) {
    return native.rsaOaep(encrypt, key.bytes, key.algorithm.hash?.name as string, (label as Bytes | undefined) ?? new Uint8Array(), data);
  },
});

const CURVES = ["P-256", "P-384", "P-521"];

function ec(name: string, own: Partial<Algorithm>): Algorithm {
  const curve = (value: unknown, what: string) => {
    const curve = text(value, what);
    if (!CURVES.includes(curve)) throw fail("NotSupportedError", "Unrecognized namedCurve");
    return curve;
  };
  return {
    name,
    usages: SIGNING,
    importKey({ namedCurve }, format, data) {
      return { ...importPair(namedCurve as string, format, data), algorithm: { name, namedCurve: namedCurve as string } };
    },
    generateKey({ namedCurve }) {
      const family = namedCurve as string;
      return { type: "private", bytes: native.keyGenerate(family), family, algorithm: { name, namedCurve: family } };
    },
    ...own,
    members: { importKey: { namedCurve: curve }, generateKey: { namedCurve: curve }, ...own.members },
  };
}

export const ecdsa = ec("ECDSA", {
  use: "sig",
  members: { sign: { hash } },
  ...signing(),
  acceptsJwkName: (alg, { namedCurve }) => alg === { "P-256": "ES256", "P-384": "ES384", "P-521": "ES512" }[namedCurve as string],
});

export const ecdh = ec("ECDH", { use: "enc", usages: AGREEING, members: { deriveBits: { public: cryptoKey } }, deriveBits: agree, acceptsJwkName: () => true });

function okp(name: string, own: Partial<Algorithm>): Algorithm {
  return {
    name,
    usages: SIGNING,
    importKey: (_, format, data) => ({ ...importPair(name, format, data), algorithm: { name } }),
    generateKey: () => ({ type: "private", bytes: native.keyGenerate(name), family: name, algorithm: { name } }),
    ...own,
    members: { importKey: {}, generateKey: {}, ...own.members },
  };
}

export const ed25519 = okp("Ed25519", {
  use: "sig",
  members: { sign: {} },
  ...signing(),
  jwkName: () => "Ed25519",
  acceptsJwkName: (alg) => alg === "Ed25519" || alg === "EdDSA",
});

export const x25519 = okp("X25519", { use: "enc", usages: AGREEING, members: { deriveBits: { public: cryptoKey } }, deriveBits: agree, acceptsJwkName: () => true });

/** The shared secret, or its first bits. */
function agree(params: Params, key: Material, length: number | null): Bytes {
  const other = materialOf(params.public as CryptoKey);
  if (key.type !== "private") throw fail("InvalidAccessError", "baseKey must be a private key");
  if (other.type !== "public") throw fail("InvalidAccessError", "algorithm.public must be a public key");
  if (other.algorithm.name !== key.algorithm.name) throw fail("InvalidAccessError", `algorithm.public must be an ${key.algorithm.name} key`);
  if (other.family !== key.family) throw fail("InvalidAccessError", "Named curve mismatch");
  const secret = native.agree(key.family, key.bytes, other.bytes);
  if (length === null) return secret;
  const size = Math.ceil(length / 8);
  if (secret.length < size) throw fail("OperationError", "derived bit length is too small");
  const bits = secret.slice(0, size);
  // The bits that are not asked for are zero.
  if (length % 8 !== 0) bits[size - 1] = (bits[size - 1] as number) & (0xff << (8 - (length % 8)));
  return bits;
}
