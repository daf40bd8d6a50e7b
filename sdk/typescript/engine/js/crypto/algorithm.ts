// What an algorithm of `crypto.subtle` consists of.
import { fail, type Members } from "./normalize.ts";
import type { KeyParams, Material } from "./key.ts";

/** The members of an algorithm's dictionary after their conversion, under its canonical name. */
export type Params = { name: string } & Record<string, unknown>;

/** A key that was read, before it has usages. */
export type Imported = Pick<Material, "type" | "bytes" | "family"> & { algorithm: KeyParams };

export type Bytes = Uint8Array<ArrayBuffer>;

/** An algorithm of keys. An operation that it lacks is not supported. */
export interface Algorithm {
  name: string;
  /** The usages of its keys by type. */
  usages: Partial<Record<KeyType, KeyUsage[]>>;
  /** `use` in JSON Web Keys. */
  use?: "sig" | "enc";
  /** The members of the dictionaries, by operation. */
  members: Partial<Record<"importKey" | "generateKey" | "getKeyLength" | "sign" | "cipher" | "deriveBits", Members>>;
  importKey(params: Params, format: KeyFormat, data: Bytes | JsonWebKey): Imported;
  /** A secret or a private key. */
  generateKey?(params: Params): Imported;
  /** `alg` in JSON Web Keys of this algorithm; `undefined` leaves it out. */
  jwkName?(algorithm: KeyParams): string | undefined;
  /** Whether a JSON Web Key may have that `alg`; without it, it has to be `jwkName`. */
  acceptsJwkName?(alg: string, algorithm: KeyParams): boolean;
  sign?(params: Params, key: Material, data: Bytes): Bytes;
  verify?(params: Params, key: Material, data: Bytes, signature: Bytes): boolean;
  /** Encrypts and decrypts; or wraps and unwraps keys only, if `wrapsOnly`. */
  cipher?(params: Params, key: Material, data: Bytes, encrypt: boolean): Bytes;
  wrapsOnly?: boolean;
  /** `length` is the number of bits, or null for what there is. */
  deriveBits?(params: Params, key: Material, length: number | null): Bytes;
  /** The length in bits of a derived key; null if it may have any. */
  getKeyLength?(params: Params): number | null;
}

/** The bytes of a secret key from `raw` or `jwk`. */
export function secretBytes(format: KeyFormat, data: Bytes | JsonWebKey, name: string): Bytes {
  if (format === "raw") return (data as Bytes).slice();
  if (format !== "jwk") throw fail("NotSupportedError", `Unable to import ${name} key with format ${format}`);
  const { kty, k } = data as JsonWebKey;
  if (kty !== "oct") throw fail("DataError", 'Invalid JWK "kty" Parameter');
  if (k === undefined) throw fail("DataError", "Invalid keyData");
  return native.fromBase64Url(k);
}
