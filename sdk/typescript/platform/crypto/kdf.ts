// Key derivation, which the engine lacks.
import { hkdf as expand } from "@noble/hashes/hkdf.js";
import { sha1 } from "@noble/hashes/legacy.js";
import { pbkdf2 as stretch } from "@noble/hashes/pbkdf2.js";
import { sha256, sha384, sha512 } from "@noble/hashes/sha2.js";
import { bytesOf, fail, hashName, type Algorithm } from "./key.ts";

const HASHES = { "SHA-1": sha1, "SHA-256": sha256, "SHA-384": sha384, "SHA-512": sha512 };
const hashOf = (hash: unknown) => HASHES[hashName(hash) as keyof typeof HASHES];

export const hkdf = kdf("HKDF", ({ hash, salt, info }, secret, size) => expand(hashOf(hash), secret, bytesOf(salt), bytesOf(info), size));

export const pbkdf2 = kdf("PBKDF2", ({ hash, salt, iterations }, secret, size) =>
  stretch(hashOf(hash), secret, bytesOf(salt), { c: Number(iterations), dkLen: size }),
);

function kdf(name: string, derive: (params: Record<string, unknown>, secret: Uint8Array, size: number) => Uint8Array): Algorithm {
  return {
    usages: { secret: ["deriveBits", "deriveKey"] },
    import(format, data) {
      if (format !== "raw") throw fail("NotSupportedError", `${name} keys cannot be imported as ${format}`);
      return { type: "secret", bytes: data as Uint8Array, algorithm: { name } };
    },
    deriveBits(params, key, length) {
      if (length === null || length % 8 !== 0) throw fail("OperationError", "the length must be a multiple of 8 bits");
      return derive(params, key.bytes as Uint8Array, length / 8);
    },
  };
}
