// Keys of `crypto.subtle`: the standard's interface, and the key material.

/** The key material. Which fields are set depends on the algorithm. */
export interface Material {
  type: KeyType;
  algorithm: KeyAlgorithm & Record<string, unknown>;
  /** A secret key, or the encoded bytes of an elliptic-curve key. */
  bytes?: Uint8Array;
  /** The key as a JSON Web Key, for asymmetric keys. */
  jwk?: JsonWebKey;
  /** The engine's own key. */
  native?: CryptoKey;
  /** The key in its imported form. */
  der?: { format: string; bytes: Uint8Array };
}

/** The parameters of an operation, with the algorithm's name. */
export type Params = { name: string } & Record<string, unknown>;

/** The operations of an algorithm. Missing operations are not supported. */
export interface Algorithm {
  /** The usages of its keys, by key type. */
  usages: Partial<Record<KeyType, KeyUsage[]>>;
  import(format: KeyFormat, data: Uint8Array | JsonWebKey, params: Params): Promise<Material> | Material;
  generate?(params: Params): Material | { privateKey: Material; publicKey: Material };
  raw?(key: Material): Uint8Array;
  sign?(params: Params, key: Material, data: Uint8Array): Promise<Uint8Array> | Uint8Array;
  verify?(params: Params, key: Material, signature: Uint8Array, data: Uint8Array): Promise<boolean> | boolean;
  encrypt?(params: Params, key: Material, data: Uint8Array): Promise<Uint8Array> | Uint8Array;
  decrypt?(params: Params, key: Material, data: Uint8Array): Promise<Uint8Array> | Uint8Array;
  /** The number of bits if `length` is null. */
  deriveBits?(params: Params, key: Material, length: number | null): Promise<Uint8Array> | Uint8Array;
}

const materials = new WeakMap<CryptoKey, Material>();

/** A key with the standard's interface. */
export function makeKey(material: Material, extractable: boolean, usages: KeyUsage[]): CryptoKey {
  const property = (value: unknown) => ({ value, enumerable: true });
  const key = Object.create(CryptoKey.prototype, {
    type: property(material.type),
    extractable: property(extractable || material.type === "public"),
    algorithm: property(material.algorithm),
    usages: property([...usages]),
  }) as CryptoKey;
  materials.set(key, material);
  return key;
}

/** Returns the material of a key, after a check of its usage. */
export function materialFor(key: CryptoKey, name: string, usage?: KeyUsage): Material {
  const material = materials.get(key);
  if (!material) throw new TypeError("not a CryptoKey");
  if (material.algorithm.name !== name) throw fail("InvalidAccessError", `the key is a ${material.algorithm.name} key, not a ${name} key`);
  if (usage && !key.usages.includes(usage)) throw fail("InvalidAccessError", `the key is not for ${usage}`);
  return material;
}

/** The standard's `DOMException` with that name. */
export function fail(name: string, message: string): DOMException {
  return new DOMException(message, name);
}

/** The canonical name of a hash. */
export function hashName(hash: unknown): string {
  const name = String(typeof hash === "object" && hash !== null ? (hash as { name?: unknown }).name : hash).toUpperCase();
  if (!["SHA-1", "SHA-256", "SHA-384", "SHA-512"].includes(name)) throw fail("NotSupportedError", `unrecognized hash ${name}`);
  return name;
}

/** Copies the bytes of a buffer. */
export function bytesOf(data: unknown): Uint8Array<ArrayBuffer> {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength).slice();
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  throw new TypeError("expected an ArrayBuffer or a view of one");
}

/** Decodes base64url, as used in JSON Web Keys. */
export function fromBase64Url(text: unknown): Uint8Array<ArrayBuffer> {
  if (typeof text !== "string" || !/^[\w-]*$/.test(text)) throw fail("DataError", "the JSON Web Key lacks a member, or it is not base64url");
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
}

/** Encodes base64url. */
export function toBase64Url(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
