// HMAC with the engine's code. The engine's own import of JSON Web Keys imports a wrong key.
import { fail, fromBase64Url, hashName, type Algorithm, type Material } from "./key.ts";
import { native } from "./native.ts";

const BLOCK: Record<string, number> = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 };

export const hmac: Algorithm = {
  usages: { secret: ["sign", "verify"] },
  import(format, data, { hash }) {
    if (format === "jwk") return secret(fromBase64Url((data as JsonWebKey).k), hashName(hash));
    if (format !== "raw") throw fail("NotSupportedError", `HMAC keys cannot be imported as ${format}`);
    return secret(data as Uint8Array, hashName(hash));
  },
  generate({ hash, length }) {
    const name = hashName(hash);
    return secret(crypto.getRandomValues(new Uint8Array(length === undefined ? (BLOCK[name] as number) : Math.ceil(Number(length) / 8))), name);
  },
  raw: (key) => key.bytes as Uint8Array,
  async sign(_, key, data) {
    return new Uint8Array(await native.sign("HMAC", await keyOf(key), data as BufferSource));
  },
  async verify(_, key, signature, data) {
    return native.verify("HMAC", await keyOf(key), signature as BufferSource, data as BufferSource);
  },
};

function secret(bytes: Uint8Array, hash: string): Material {
  if (bytes.length === 0) throw fail("DataError", "an HMAC key must have at least one byte");
  return { type: "secret", bytes, algorithm: { name: "HMAC", hash: { name: hash }, length: bytes.length * 8 } };
}

async function keyOf(key: Material): Promise<CryptoKey> {
  const params = { name: "HMAC", hash: key.algorithm.hash as KeyAlgorithm };
  key.native ??= await native.importKey("raw", key.bytes as BufferSource, params, false, ["sign", "verify"]);
  return key.native;
}
