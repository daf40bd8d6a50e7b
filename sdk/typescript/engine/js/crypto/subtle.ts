// `crypto.subtle`. The natives run at the call, so arguments need no copies; every error rejects the promise.
import type { Algorithm, Bytes, Imported, Params } from "./algorithm.ts";
import { ecdh, ecdsa, ed25519, exportJwk, rsaOaep, rsaPkcs1, rsaPss, x25519 } from "./asymmetric.ts";
import { makeKey, materialOf, type CryptoKey, type Material } from "./key.ts";
import { buffer, cryptoKey, dictionary, fail, hash, identifierName, jsonWebKey, keyFormat, required, usageList } from "./normalize.ts";
import { aesCbc, aesCtr, aesGcm, aesKw, hkdf, hmac, pbkdf2 } from "./secret.ts";

const ALGORITHMS = new Map(
  [aesCbc, aesCtr, aesGcm, aesKw, ecdh, ecdsa, ed25519, hkdf, hmac, pbkdf2, rsaOaep, rsaPkcs1, rsaPss, x25519].map((it) => [it.name.toUpperCase(), it]),
);

/** The algorithm of an identifier for an operation, and its parameters. */
function normalize(identifier: unknown, operation: keyof Algorithm["members"]): [Algorithm, Params] {
  const algorithm = ALGORITHMS.get(identifierName(identifier).toUpperCase());
  const members = algorithm?.members[operation];
  if (!algorithm || !members) throw fail("NotSupportedError", "Unrecognized algorithm name");
  return [algorithm, { ...dictionary(members, identifier), name: algorithm.name }];
}

/** Ciphers that wrap keys only are no ciphers for `encrypt` and `decrypt`. */
function normalizeCipher(identifier: unknown, wraps: boolean): [Algorithm, Params] {
  const found = normalize(identifier, "cipher");
  if (found[0].wrapsOnly && !wraps) throw fail("NotSupportedError", "Unrecognized algorithm name");
  return found;
}

/** The material of a key that may be used for an operation. */
function usable(key: CryptoKey, algorithm: Algorithm, usage: KeyUsage): Material {
  const material = materialOf(key);
  if (material.algorithm.name !== algorithm.name) throw fail("InvalidAccessError", "The requested operation is not valid for the provided key");
  if (!material.usages.includes(usage)) throw fail("InvalidAccessError", `Unable to use this key to ${usage}`);
  return material;
}

export class SubtleCrypto {
  constructor(secret?: unknown) {
    if (secret !== token) throw new TypeError("Illegal constructor");
  }

  async digest(algorithm: unknown, data: unknown): Promise<ArrayBuffer> {
    required(arguments.length, 2);
    return native.digest(hash(algorithm, "the algorithm"), buffer(data, "the data")).buffer;
  }

  async sign(identifier: unknown, key: unknown, data: unknown): Promise<ArrayBuffer> {
    required(arguments.length, 3);
    const [algorithm, params] = normalize(identifier, "sign");
    const material = usable(cryptoKey(key, "the key"), algorithm, "sign");
    return (algorithm.sign as NonNullable<Algorithm["sign"]>)(params, material, buffer(data, "the data")).buffer;
  }

  async verify(identifier: unknown, key: unknown, signature: unknown, data: unknown): Promise<boolean> {
    required(arguments.length, 4);
    const [algorithm, params] = normalize(identifier, "sign");
    const material = usable(cryptoKey(key, "the key"), algorithm, "verify");
    const verify = algorithm.verify as NonNullable<Algorithm["verify"]>;
    return verify(params, material, buffer(data, "the data"), buffer(signature, "the signature"));
  }

  async encrypt(identifier: unknown, key: unknown, data: unknown): Promise<ArrayBuffer> {
    required(arguments.length, 3);
    const [algorithm, params] = normalizeCipher(identifier, false);
    return cipher(algorithm, params, key, "encrypt", buffer(data, "the data")).buffer;
  }

  async decrypt(identifier: unknown, key: unknown, data: unknown): Promise<ArrayBuffer> {
    required(arguments.length, 3);
    const [algorithm, params] = normalizeCipher(identifier, false);
    return cipher(algorithm, params, key, "decrypt", buffer(data, "the data")).buffer;
  }

  async deriveBits(identifier: unknown, baseKey: unknown, length: unknown = null): Promise<ArrayBuffer> {
    required(arguments.length, 2);
    const bits = length === null ? null : Number(length) >>> 0;
    const [algorithm, params] = normalize(identifier, "deriveBits");
    return derive(algorithm, params, baseKey, "deriveBits", bits).buffer;
  }

  async deriveKey(identifier: unknown, baseKey: unknown, derived: unknown, extractable: unknown, usages: unknown): Promise<CryptoKey> {
    required(arguments.length, 5);
    const list = usageList(usages);
    const [algorithm, params] = normalize(identifier, "deriveBits");
    const [target, importParams] = normalize(derived, "importKey");
    const [sized, lengthParams] = normalize(derived, "getKeyLength");
    const length = (sized.getKeyLength as NonNullable<Algorithm["getKeyLength"]>)(lengthParams);
    const bytes = derive(algorithm, params, baseKey, "deriveKey", length);
    return importKey("raw", bytes, target, importParams, Boolean(extractable), list);
  }

  async generateKey(identifier: unknown, extractable: unknown, usages: unknown): Promise<CryptoKey | CryptoKeyPair> {
    required(arguments.length, 3);
    const list = usageList(usages);
    const [algorithm, params] = normalize(identifier, "generateKey");
    if (!algorithm.generateKey) throw fail("NotSupportedError", "Unrecognized algorithm name");
    const { secret, private: closed = [], public: open = [] } = algorithm.usages;
    const allowed = secret ?? [...closed, ...open];
    const unsupported = list.some((usage) => !allowed.includes(usage));
    if (unsupported) throw fail("SyntaxError", `Unsupported key usage for a ${algorithm.name} key`);
    const made = algorithm.generateKey(params);
    if (!list.some((usage) => (secret ?? closed).includes(usage))) throw fail("SyntaxError", "Usages cannot be empty when creating a key.");
    const withUsages = (key: Imported, allowed: KeyUsage[], extractable: boolean) =>
      makeKey({ ...key, extractable, usages: list.filter((usage) => allowed.includes(usage)) });
    if (secret) return withUsages(made, secret, Boolean(extractable));
    const publicKey = withUsages({ ...made, type: "public", bytes: native.keyPublic(made.family, made.bytes) }, open, true);
    return { publicKey, privateKey: withUsages(made, closed, Boolean(extractable)) } as never;
  }

  async importKey(format: unknown, data: unknown, identifier: unknown, extractable: unknown, usages: unknown): Promise<CryptoKey> {
    required(arguments.length, 5);
    const name = keyFormat(format);
    const key = name === "jwk" ? jsonWebKey(data) : buffer(data, "the key");
    const list = usageList(usages);
    const [algorithm, params] = normalize(identifier, "importKey");
    return importKey(name, key, algorithm, params, Boolean(extractable), list);
  }

  async exportKey(format: unknown, key: unknown): Promise<ArrayBuffer | JsonWebKey> {
    required(arguments.length, 2);
    const exported = exportKey(keyFormat(format), cryptoKey(key, "the key"));
    return exported instanceof Uint8Array ? exported.buffer : exported;
  }

  async wrapKey(format: unknown, key: unknown, wrappingKey: unknown, identifier: unknown): Promise<ArrayBuffer> {
    required(arguments.length, 4);
    const name = keyFormat(format);
    const wrapped = cryptoKey(key, "the key");
    const [algorithm, params] = normalizeCipher(identifier, true);
    usable(cryptoKey(wrappingKey, "the wrapping key"), algorithm, "wrapKey");
    const exported = exportKey(name, wrapped);
    const data = exported instanceof Uint8Array ? exported : utf8(exported, algorithm.wrapsOnly === true);
    return cipher(algorithm, params, wrappingKey, "wrapKey", data).buffer;
  }

  async unwrapKey(
    format: unknown,
    wrapped: unknown,
    unwrappingKey: unknown,
    identifier: unknown,
    imported: unknown,
    extractable: unknown,
    usages: unknown,
  ): Promise<CryptoKey> {
    required(arguments.length, 7);
    const name = keyFormat(format);
    const source = buffer(wrapped, "the wrapped key");
    const list = usageList(usages);
    const [algorithm, params] = normalizeCipher(identifier, true);
    const [target, importParams] = normalize(imported, "importKey");
    const data = cipher(algorithm, params, unwrappingKey, "unwrapKey", source);
    return importKey(name, name === "jwk" ? parseJwk(data) : data, target, importParams, Boolean(extractable), list);
  }
}

const token = Symbol();

/** `crypto.subtle` itself. */
export const subtle = new SubtleCrypto(token);

function cipher(algorithm: Algorithm, params: Params, key: unknown, usage: "encrypt" | "decrypt" | "wrapKey" | "unwrapKey", data: Bytes): Bytes {
  const material = usable(cryptoKey(key, "the key"), algorithm, usage);
  const encrypts = usage === "encrypt" || usage === "wrapKey";
  return (algorithm.cipher as NonNullable<Algorithm["cipher"]>)(params, material, data, encrypts);
}

function derive(algorithm: Algorithm, params: Params, key: unknown, usage: "deriveBits" | "deriveKey", length: number | null): Bytes {
  const material = usable(cryptoKey(key, "the key"), algorithm, usage);
  return (algorithm.deriveBits as NonNullable<Algorithm["deriveBits"]>)(params, material, length);
}

function importKey(format: KeyFormat, data: Bytes | JsonWebKey, algorithm: Algorithm, params: Params, extractable: boolean, usages: KeyUsage[]): CryptoKey {
  const { usages: allowed, name } = algorithm;
  const type = allowed.secret ? "secret" : format === "pkcs8" || (format === "jwk" && (data as JsonWebKey).d !== undefined) ? "private" : "public";
  if (usages.some((usage) => !allowed[type]?.includes(usage))) throw fail("SyntaxError", `Unsupported key usage for a ${name} key`);
  if (extractable && algorithm.deriveBits && allowed.secret) throw fail("SyntaxError", `${name} keys are not extractable`);
  const key = algorithm.importKey(params, format, data);
  if (format === "jwk") checkJwk(data as JsonWebKey, algorithm, key, extractable, usages);
  if (type !== "public" && usages.length === 0) throw fail("SyntaxError", `Usages cannot be empty when importing a ${type} key.`);
  return makeKey({ ...key, extractable, usages });
}

/** The members of a JSON Web Key that restrict its use. */
function checkJwk(jwk: JsonWebKey, algorithm: Algorithm, key: Imported, extractable: boolean, usages: KeyUsage[]): void {
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== algorithm.use) throw fail("DataError", 'Invalid JWK "use" Parameter');
  if (jwk.key_ops) {
    const operations = new Set(jwk.key_ops);
    if (operations.size < jwk.key_ops.length || usages.some((usage) => !operations.has(usage))) throw fail("DataError", "Key operations and usage mismatch");
  }
  if (jwk.ext === false && extractable) throw fail("DataError", 'JWK "ext" Parameter and extractable mismatch');
  if (jwk.alg === undefined) return;
  const accepted = algorithm.acceptsJwkName?.(jwk.alg, key.algorithm) ?? jwk.alg === algorithm.jwkName?.(key.algorithm);
  if (!accepted) throw fail("DataError", 'JWK "alg" does not match the requested algorithm');
}

function exportKey(format: KeyFormat, key: CryptoKey): Bytes | JsonWebKey {
  const material = materialOf(key);
  const { type, family, bytes, algorithm, extractable, usages } = material;
  const { jwkName, deriveBits } = ALGORITHMS.get(algorithm.name.toUpperCase()) as Algorithm;
  // The keys of HKDF and PBKDF2 have no format, and are never extractable.
  if (type === "secret" && deriveBits) throw fail("NotSupportedError", "Not yet supported");
  if (!extractable) throw fail("InvalidAccessError", "key is not extractable");
  if (format === "jwk") {
    const alg = jwkName?.(algorithm);
    const members = type === "secret" ? { kty: "oct", k: native.toBase64Url(bytes) } : exportJwk(material);
    return { key_ops: [...usages], ext: extractable, ...members, ...(alg === undefined ? {} : { alg }) };
  }
  if (type === "secret") {
    if (format === "raw") return bytes.slice();
    throw fail("NotSupportedError", `Unable to export a ${format} ${algorithm.name} secret key`);
  }
  if (format === "raw" && family === "RSA") throw fail("NotSupportedError", `Unable to export a raw ${algorithm.name} ${type} key`);
  if ((format === "pkcs8") !== (type === "private")) throw fail("InvalidAccessError", `Unable to export a ${format} ${algorithm.name} ${type} key`);
  return native.keyExport(family, format, bytes);
}

/** The text of a JSON Web Key that is wrapped; AES-KW needs multiples of 8 bytes, and the members are ASCII. */
function utf8(jwk: JsonWebKey, padded: boolean): Bytes {
  const json = JSON.stringify(jwk);
  return native.utf8Encode(padded ? json.padEnd(Math.ceil(json.length / 8) * 8) : json);
}

function parseJwk(data: Bytes): JsonWebKey {
  let parsed: unknown;
  try {
    parsed = JSON.parse(native.utf8Decode(data, true, false));
  } catch {
    throw fail("DataError", "Invalid wrapped JWK key");
  }
  return jsonWebKey(parsed);
}
