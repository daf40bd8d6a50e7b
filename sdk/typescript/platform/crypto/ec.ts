// ECDSA with the engine's code, ECDH, and import of key formats that the engine does not support.
import { p256, p384, p521 } from "@noble/curves/nist.js";
import { bitString, OCTET_STRING, only, privateKey, publicKey, sequence } from "./der.ts";
import { fail, fromBase64Url, hashName, toBase64Url, type Algorithm, type Material, type Params } from "./key.ts";
import { native } from "./native.ts";

const CURVES: Record<string, { id: string; size: number; curve: typeof p256 }> = {
  "P-256": { id: "2a8648ce3d030107", size: 32, curve: p256 },
  "P-384": { id: "2b81040022", size: 48, curve: p384 },
  "P-521": { id: "2b81040023", size: 66, curve: p521 },
};

/** The tag of the public key in a private key. */
const PUBLIC_KEY = 0xa1;

export const ecdsa: Algorithm = {
  usages: { public: ["verify"], private: ["sign"] },
  import: importKey,
  generate,
  raw: point,
  async sign({ hash }, key, data) {
    return new Uint8Array(await native.sign({ name: "ECDSA", hash: hashName(hash) }, await keyOf(key), data as BufferSource));
  },
  async verify({ hash }, key, signature, data) {
    return native.verify({ name: "ECDSA", hash: hashName(hash) }, await keyOf(key), signature as BufferSource, data as BufferSource);
  },
};

export const ecdh: Algorithm = {
  usages: { public: [], private: ["deriveBits", "deriveKey"] },
  import: importKey,
  generate,
  raw: point,
  deriveBits({ public: other }, key) {
    const { curve } = curveOf(key.algorithm);
    const otherKey = (other as { material: Material }).material;
    return curve.getSharedSecret(fromBase64Url(key.jwk?.d), point(otherKey)).subarray(1);
  },
};

function curveOf({ namedCurve }: Record<string, unknown>) {
  const found = CURVES[String(namedCurve)];
  if (!found) throw fail("NotSupportedError", `unrecognized curve ${namedCurve}`);
  return found;
}

function importKey(format: KeyFormat, data: Uint8Array | JsonWebKey, params: Params): Material {
  const { id } = curveOf(params);
  const check = ({ ids, key }: { ids: string[]; key: Uint8Array }) => {
    if (ids[0] !== "2a8648ce3d0201" || ids[1] !== id) throw fail("DataError", `the key is not for the curve ${params.namedCurve}`);
    return key;
  };
  const bytes = data as Uint8Array;
  switch (format) {
    case "jwk": {
      const { kty, crv, x, y, d } = data as JsonWebKey;
      if (kty !== "EC" || crv !== params.namedCurve) throw fail("DataError", `the JSON Web Key is not for the curve ${params.namedCurve}`);
      return material({ x, y, d }, params);
    }
    case "raw":
      return fromPoint(bytes, params);
    case "spki":
      return { ...fromPoint(check(publicKey(bytes)), params), der: { format, bytes } };
    case "pkcs8": {
      const [, secret, ...more] = sequence(check(privateKey(bytes)));
      const d = only(secret, OCTET_STRING);
      // The public key is usually included, and deriving it takes long.
      const open = more.find(({ tag }) => tag === PUBLIC_KEY);
      const key = open ? withSecret(fromPoint(bitString(open.bytes), params), d, params) : fromSecret(d, params);
      return { ...key, der: { format, bytes } };
    }
  }
}

function generate(params: Params): { privateKey: Material; publicKey: Material } {
  const pair = fromSecret(curveOf(params).curve.utils.randomSecretKey(), params);
  return { privateKey: pair, publicKey: material({ x: pair.jwk?.x, y: pair.jwk?.y }, params) };
}

function fromSecret(secret: Uint8Array, params: Params): Material {
  const { curve } = curveOf(params);
  return withSecret(fromPoint(curve.getPublicKey(secret, false), params), secret, params);
}

function withSecret({ jwk }: Material, secret: Uint8Array, params: Params): Material {
  return material({ ...jwk, d: toBase64Url(secret) }, params);
}

function fromPoint(bytes: Uint8Array, params: Params): Material {
  const { size, curve } = curveOf(params);
  let coordinates: Uint8Array;
  try {
    coordinates = curve.Point.fromBytes(bytes).toBytes(false);
  } catch {
    throw fail("DataError", "the key is not a point on its curve");
  }
  return material({ x: toBase64Url(coordinates.subarray(1, 1 + size)), y: toBase64Url(coordinates.subarray(1 + size)) }, params);
}

function material({ x, y, d }: JsonWebKey, { name, namedCurve }: Params): Material {
  const jwk: JsonWebKey = { kty: "EC", crv: String(namedCurve), x, y, ...(d === undefined ? {} : { d }) };
  return { type: d === undefined ? "public" : "private", jwk, algorithm: { name, namedCurve } };
}

function point(key: Material): Uint8Array {
  return Uint8Array.of(4, ...fromBase64Url(key.jwk?.x), ...fromBase64Url(key.jwk?.y));
}

async function keyOf(key: Material): Promise<CryptoKey> {
  const params = { name: "ECDSA", namedCurve: String(key.algorithm.namedCurve) };
  key.native ??= await native.importKey("jwk", key.jwk as JsonWebKey, params, false, [key.type === "public" ? "verify" : "sign"]);
  return key.native;
}

