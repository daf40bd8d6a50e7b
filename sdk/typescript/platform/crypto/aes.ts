// AES, which the engine lacks.
import { aeskw, cbc, ctr, gcm } from "@noble/ciphers/aes.js";
import { bytesOf, fail, fromBase64Url, type Algorithm, type Material, type Params } from "./key.ts";

type Cipher = { encrypt(data: Uint8Array): Uint8Array; decrypt(data: Uint8Array): Uint8Array };

const CRYPTING: KeyUsage[] = ["encrypt", "decrypt", "wrapKey", "unwrapKey"];

export const aesGcm = aes("AES-GCM", CRYPTING, ({ iv, additionalData, tagLength = 128 }, key) => {
  if (tagLength !== 128) throw fail("NotSupportedError", "AES-GCM tags must have 128 bits in a policy");
  return gcm(key, bytesOf(iv), additionalData === undefined ? undefined : bytesOf(additionalData));
});

export const aesCbc = aes("AES-CBC", CRYPTING, ({ iv }, key) => cbc(key, bytesOf(iv)));

export const aesCtr = aes("AES-CTR", CRYPTING, ({ counter }, key) => ctr(key, bytesOf(counter)));

export const aesKw = aes("AES-KW", ["wrapKey", "unwrapKey"], (_, key) => aeskw(key));

function aes(name: string, usages: KeyUsage[], cipher: (params: Params, key: Uint8Array) => Cipher): Algorithm {
  const secret = (bytes: Uint8Array): Material => {
    if (![16, 24, 32].includes(bytes.length)) throw fail("DataError", `${name} keys must have 128, 192 or 256 bits`);
    return { type: "secret", bytes, algorithm: { name, length: bytes.length * 8 } };
  };
  return {
    usages: { secret: usages },
    import(format, data) {
      if (format === "jwk") return secret(fromBase64Url((data as JsonWebKey).k));
      if (format !== "raw") throw fail("NotSupportedError", `${name} keys cannot be imported as ${format}`);
      return secret(data as Uint8Array);
    },
    generate: ({ length }) => secret(crypto.getRandomValues(new Uint8Array(Number(length) / 8))),
    raw: (key) => key.bytes as Uint8Array,
    encrypt: (params, key, data) => cipher(params, key.bytes as Uint8Array).encrypt(data),
    decrypt(params, key, data) {
      const decryptor = cipher(params, key.bytes as Uint8Array);
      try {
        return decryptor.decrypt(data);
      } catch {
        throw fail("OperationError", "the data could not be decrypted");
      }
    },
  };
}
