// Arguments of `crypto.subtle`, converted by the rules of Web IDL and of the standard's algorithm normalisation.
import { CryptoKey } from "./key.ts";

/** The standard's `DOMException` of that name. */
export function fail(name: string, message: string): DOMException {
  return new DOMException(message, name);
}

/** Converts a member of a dictionary. `what` names it in errors. */
export type Converter<T> = (value: unknown, what: string) => T;

/** The members of a dictionary that an operation of an algorithm takes; those that end in `?` are optional. */
export type Members = Record<string, Converter<unknown>>;

/** A `BufferSource`, as a view of its bytes without a copy: every operation reads it before it returns. */
export function buffer(value: unknown, what: string): Uint8Array<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) {
    if (value.buffer instanceof ArrayBuffer) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  } else if (value instanceof ArrayBuffer) return new Uint8Array(value);
  throw new TypeError(`${what} is not an ArrayBuffer or a view of one`);
}

/** A `BigInteger`. */
export function bigInteger(value: unknown, what: string): Uint8Array {
  if (value instanceof Uint8Array) return value.slice();
  throw new TypeError(`${what} is not a Uint8Array`);
}

/** An integer with `[EnforceRange]`. */
function integer(maximum: number): Converter<number> {
  return (value, what) => {
    const number = Math.trunc(Number(value));
    if (!(number >= 0 && number <= maximum)) throw new TypeError(`${what} is not an integer of 0 to ${maximum}`);
    return number + 0;
  };
}
export const octet = integer(0xff);
export const unsignedShort = integer(0xffff);
export const unsignedLong = integer(0xffffffff);

export const text: Converter<string> = (value, what) => {
  if (typeof value === "symbol") throw new TypeError(`${what} is a symbol`);
  return String(value);
};

export const cryptoKey: Converter<CryptoKey> = (value, what) => {
  if (value instanceof CryptoKey) return value;
  throw new TypeError(`${what} is not a CryptoKey`);
};

const HASHES = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];

/** A `HashAlgorithmIdentifier`, as the name of the hash. */
export const hash: Converter<string> = (value, what) => {
  const name = identifierName(value, what).toUpperCase();
  if (!HASHES.includes(name)) throw fail("NotSupportedError", "Unrecognized algorithm name");
  return name;
};

/** The name of an `AlgorithmIdentifier`, which is that name or an object that has it. */
export function identifierName(value: unknown, what = "the algorithm"): string {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return text(value, what);
  const { name } = value as { name?: unknown };
  if (name === undefined) throw new TypeError(`${what} has no name`);
  return text(name, `the name of ${what}`);
}

/** The converted members of an algorithm's dictionary. */
export function dictionary(members: Members, value: unknown): Record<string, unknown> {
  const source = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const converted: Record<string, unknown> = {};
  for (const [key, convert] of Object.entries(members)) {
    const name = key.replace("?", "");
    const member = source[name];
    if (member !== undefined) converted[name] = convert(member, name);
    else if (name === key) throw new TypeError(`the algorithm has no ${name}`);
  }
  return converted;
}

const USAGES = ["encrypt", "decrypt", "sign", "verify", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"];

/** A `sequence<KeyUsage>`, without duplicates. */
export function usageList(value: unknown): KeyUsage[] {
  if (typeof value !== "object" || value === null || !(Symbol.iterator in value)) throw new TypeError("the usages are not a sequence");
  const given = Array.from(value as Iterable<unknown>, (usage) => {
    const name = text(usage, "a usage");
    if (!USAGES.includes(name)) throw new TypeError(`${JSON.stringify(name)} is not a key usage`);
    return name as KeyUsage;
  });
  return [...new Set(given)];
}

/** A `KeyFormat`. */
export function keyFormat(value: unknown): KeyFormat {
  const name = text(value, "the format");
  if (name !== "raw" && name !== "pkcs8" && name !== "spki" && name !== "jwk") throw new TypeError(`${JSON.stringify(name)} is not a key format`);
  return name;
}

const JWK_TEXT = ["kty", "use", "alg", "crv", "x", "y", "d", "n", "e", "p", "q", "dp", "dq", "qi", "k"] as const;

/** A `JsonWebKey`. */
export function jsonWebKey(value: unknown): JsonWebKey {
  if ((typeof value !== "object" && typeof value !== "function" && value !== undefined) || value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    throw new TypeError("the key is not a JSON Web Key");
  }
  const source = (value ?? {}) as Record<string, unknown>;
  const jwk: Record<string, unknown> = {};
  for (const name of JWK_TEXT) {
    if (source[name] !== undefined) jwk[name] = text(source[name], name);
  }
  if (source.ext !== undefined) jwk.ext = Boolean(source.ext);
  for (const name of ["key_ops", "oth"]) {
    const list = source[name];
    if (list === undefined) continue;
    if (typeof list !== "object" || list === null || !(Symbol.iterator in list)) throw new TypeError(`${name} is not a sequence`);
    jwk[name] = Array.from(list as Iterable<unknown>, (item) => (name === "oth" ? item : text(item, name)));
  }
  return jwk as JsonWebKey;
}

/** Throws unless an operation got its arguments. */
export function required(given: number, needed: number): void {
  if (given < needed) throw new TypeError(`${needed} arguments required, but only ${given} present`);
}
