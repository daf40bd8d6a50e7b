// Ed25519 and X25519, which the engine lacks.
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { octets, privateKey, publicKey } from "./der.ts";
import { fail, fromBase64Url, toBase64Url, type Algorithm, type Material, type Params } from "./key.ts";

const CURVES: Record<string, { id: string; publicOf(secret: Uint8Array): Uint8Array; make(): Uint8Array }> = {
  Ed25519: { id: "2b6570", publicOf: (secret) => ed25519.getPublicKey(secret), make: () => ed25519.utils.randomSecretKey() },
  X25519: { id: "2b656e", publicOf: (secret) => x25519.getPublicKey(secret), make: () => x25519.utils.randomSecretKey() },
};

const keys = { import: importKey, generate, raw: (key: Material) => fromBase64Url(key.jwk?.x) };

export const eddsa: Algorithm = {
  ...keys,
  usages: { public: ["verify"], private: ["sign"] },
  sign: (_, key, data) => ed25519.sign(data, fromBase64Url(key.jwk?.d)),
  verify(_, key, signature, data) {
    try {
      return ed25519.verify(signature, data, fromBase64Url(key.jwk?.x));
    } catch {
      return false;
    }
  },
};

export const x: Algorithm = {
  ...keys,
  usages: { public: [], private: ["deriveBits", "deriveKey"] },
  deriveBits: ({ public: other }, key) =>
    x25519.getSharedSecret(fromBase64Url(key.jwk?.d), fromBase64Url((other as { material: Material }).material.jwk?.x)),
};

function importKey(format: KeyFormat, data: Uint8Array | JsonWebKey, { name }: Params): Material {
  const { id } = CURVES[name] as { id: string };
  const check = ({ ids, key }: { ids: string[]; key: Uint8Array }) => {
    if (ids[0] !== id) throw fail("DataError", `the key is not an ${name} key`);
    return key;
  };
  const bytes = data as Uint8Array;
  switch (format) {
    case "jwk": {
      const { kty, crv, x, d } = data as JsonWebKey;
      if (kty !== "OKP" || crv !== name) throw fail("DataError", `the JSON Web Key is not an ${name} key`);
      return material(fromBase64Url(x), d === undefined ? undefined : fromBase64Url(d), name);
    }
    case "raw":
      return material(bytes, undefined, name);
    case "spki":
      return { ...material(check(publicKey(bytes)), undefined, name), der: { format, bytes } };
    case "pkcs8":
      return { ...fromSecret(octets(check(privateKey(bytes))), name), der: { format, bytes } };
  }
}

function generate({ name }: Params): { privateKey: Material; publicKey: Material } {
  const key = fromSecret((CURVES[name] as { make(): Uint8Array }).make(), name);
  return { privateKey: key, publicKey: material(fromBase64Url(key.jwk?.x), undefined, name) };
}

function fromSecret(secret: Uint8Array, name: string): Material {
  return material((CURVES[name] as { publicOf(secret: Uint8Array): Uint8Array }).publicOf(secret), secret, name);
}

function material(open: Uint8Array, secret: Uint8Array | undefined, name: string): Material {
  if (open.length !== 32 || (secret && secret.length !== 32)) throw fail("DataError", `${name} keys must have 32 bytes`);
  const jwk: JsonWebKey = { kty: "OKP", crv: name, x: toBase64Url(open), ...(secret ? { d: toBase64Url(secret) } : {}) };
  return { type: secret ? "private" : "public", jwk, algorithm: { name } };
}
