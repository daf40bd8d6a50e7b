// `crypto.subtle` with the algorithms and formats that Node has and the engine lacks.
import { original } from "./no-random.ts";
import { patch } from "../patch.ts";
import { aesCbc, aesCtr, aesGcm, aesKw } from "./aes.ts";
import { ecdh, ecdsa } from "./ec.ts";
import { hmac } from "./hmac.ts";
import { hkdf, pbkdf2 } from "./kdf.ts";
import { bytesOf, fail, makeKey, materialFor, toBase64Url, type Algorithm, type Material, type Params } from "./key.ts";
import { native } from "./native.ts";
import { eddsa, x } from "./okp.ts";
import { rsaOaep, rsaPkcs1, rsaPss } from "./rsa.ts";

const ALGORITHMS = new Map<string, [string, Algorithm]>(
  Object.entries({
    "AES-CBC": aesCbc,
    "AES-CTR": aesCtr,
    "AES-GCM": aesGcm,
    "AES-KW": aesKw,
    ECDH: ecdh,
    ECDSA: ecdsa,
    Ed25519: eddsa,
    HKDF: hkdf,
    HMAC: hmac,
    PBKDF2: pbkdf2,
    "RSA-OAEP": rsaOaep,
    "RSA-PSS": rsaPss,
    "RSASSA-PKCS1-v1_5": rsaPkcs1,
    X25519: x,
  }).map(([name, algorithm]) => [name.toUpperCase(), [name, algorithm]]),
);

type Identifier = string | ({ name: string } & object);

/** The algorithm, and its parameters under its canonical name. */
function find(identifier: Identifier): [Params, Algorithm] {
  const params = typeof identifier === "string" ? { name: identifier } : identifier;
  const found = ALGORITHMS.get(String(params?.name).toUpperCase());
  if (!found) throw fail("NotSupportedError", "Unrecognized name.");
  return [{ ...params, name: found[0] }, found[1]];
}

type Operation = "sign" | "verify" | "encrypt" | "decrypt" | "deriveBits";

function can<Name extends Operation>(algorithm: Algorithm, operation: Name, name: string): NonNullable<Algorithm[Name]> {
  const found = algorithm[operation];
  if (!found) throw fail("NotSupportedError", `${name} does not support ${operation}`);
  return found as NonNullable<Algorithm[Name]>;
}

function exact(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer as ArrayBuffer;
}

function keyOf(material: Material, algorithm: Algorithm, extractable: boolean, usages: KeyUsage[]): CryptoKey {
  const allowed = algorithm.usages[material.type] ?? [];
  const unsupported = usages.find((usage) => !allowed.includes(usage));
  if (unsupported) throw fail("SyntaxError", `Unsupported key usage for a ${material.algorithm.name} key`);
  if (usages.length === 0 && material.type !== "public") throw fail("SyntaxError", "Usages cannot be empty when importing a secret or private key.");
  return makeKey(material, extractable, usages);
}

const subtle = {
  async importKey(format: KeyFormat, data: BufferSource | JsonWebKey, identifier: Identifier, extractable: boolean, usages: KeyUsage[]) {
    const [params, algorithm] = find(identifier);
    const material = await algorithm.import(format, format === "jwk" ? (data as JsonWebKey) : bytesOf(data), params);
    return keyOf(material, algorithm, extractable, usages);
  },
  async generateKey(identifier: Identifier, extractable: boolean, usages: KeyUsage[]) {
    const [params, algorithm] = find(identifier);
    if (!algorithm.generate) throw fail("NotSupportedError", `${params.name} keys cannot be generated in a policy`);
    const generated = algorithm.generate(params);
    if (!("privateKey" in generated)) return keyOf(generated, algorithm, extractable, usages);
    const toKey = (material: Material) => {
      const allowed = algorithm.usages[material.type] ?? [];
      return makeKey(material, extractable, usages.filter((usage) => allowed.includes(usage)));
    };
    return { privateKey: toKey(generated.privateKey), publicKey: toKey(generated.publicKey) };
  },
  async exportKey(format: KeyFormat, key: CryptoKey) {
    const [params, algorithm] = find(key.algorithm);
    const material = materialFor(key, params.name);
    if (!key.extractable) throw fail("InvalidAccessError", "key is not extractable");
    if (format === "jwk") {
      const jwk = material.jwk ?? { kty: "oct", k: toBase64Url(material.bytes as Uint8Array) };
      return { ...jwk, key_ops: [...key.usages], ext: key.extractable };
    }
    if (format === "raw" && algorithm.raw && material.type !== "private") return exact(algorithm.raw(material));
    if (material.der?.format === format) return exact(material.der.bytes);
    throw fail("NotSupportedError", `a ${material.type} ${params.name} key cannot be exported as ${format} in a policy`);
  },
  async sign(identifier: Identifier, key: CryptoKey, data: BufferSource) {
    const [params, algorithm] = find(identifier);
    return exact(await can(algorithm, "sign", params.name)(params, materialFor(key, params.name, "sign"), bytesOf(data)));
  },
  async verify(identifier: Identifier, key: CryptoKey, signature: BufferSource, data: BufferSource) {
    const [params, algorithm] = find(identifier);
    return can(algorithm, "verify", params.name)(params, materialFor(key, params.name, "verify"), bytesOf(signature), bytesOf(data));
  },
  async encrypt(identifier: Identifier, key: CryptoKey, data: BufferSource) {
    const [params, algorithm] = find(identifier);
    return exact(await can(algorithm, "encrypt", params.name)(params, materialFor(key, params.name, "encrypt"), bytesOf(data)));
  },
  async decrypt(identifier: Identifier, key: CryptoKey, data: BufferSource) {
    const [params, algorithm] = find(identifier);
    return exact(await can(algorithm, "decrypt", params.name)(params, materialFor(key, params.name, "decrypt"), bytesOf(data)));
  },
  async deriveBits(identifier: Identifier, key: CryptoKey, length: number | null = null) {
    return exact(await derive(identifier, key, length, "deriveBits"));
  },
  async deriveKey(identifier: Identifier, key: CryptoKey, derived: Identifier, extractable: boolean, usages: KeyUsage[]) {
    const { length, name } = find(derived)[0];
    const bits = typeof length === "number" ? length : name === "HMAC" ? 512 : null;
    const bytes = await derive(identifier, key, bits, "deriveKey");
    return subtle.importKey("raw", bytes as BufferSource, derived, extractable, usages);
  },
  async wrapKey(format: KeyFormat, key: CryptoKey, wrapper: CryptoKey, identifier: Identifier) {
    const [params, algorithm] = find(identifier);
    const exported = await subtle.exportKey(format, key);
    const data = format === "jwk" ? new TextEncoder().encode(JSON.stringify(exported)) : bytesOf(exported);
    return exact(await can(algorithm, "encrypt", params.name)(params, materialFor(wrapper, params.name, "wrapKey"), data));
  },
  async unwrapKey(
    format: KeyFormat,
    wrapped: BufferSource,
    wrapper: CryptoKey,
    identifier: Identifier,
    imported: Identifier,
    extractable: boolean,
    usages: KeyUsage[],
  ) {
    const [params, algorithm] = find(identifier);
    const data = await can(algorithm, "decrypt", params.name)(params, materialFor(wrapper, params.name, "unwrapKey"), bytesOf(wrapped));
    const key = format === "jwk" ? (JSON.parse(new TextDecoder().decode(data)) as JsonWebKey) : data;
    return subtle.importKey(format, key as BufferSource, imported, extractable, usages);
  },
  async digest(identifier: Identifier, data: BufferSource) {
    return native.digest(identifier, bytesOf(data));
  },
};

async function derive(identifier: Identifier, key: CryptoKey, length: number | null, usage: KeyUsage): Promise<Uint8Array> {
  const [params, algorithm] = find(identifier);
  const input = params.public instanceof CryptoKey ? { ...params, public: { material: materialFor(params.public, params.name) } } : params;
  const bytes = await can(algorithm, "deriveBits", params.name)(input, materialFor(key, params.name, usage), length);
  return length === null ? bytes : bytes.subarray(0, Math.ceil(length / 8));
}

patch(SubtleCrypto.prototype, subtle);
Object.defineProperty(CryptoKey.prototype, Symbol.toStringTag, { value: "CryptoKey", configurable: true });

if (original) Object.defineProperty(crypto, "getRandomValues", original);
else Reflect.deleteProperty(crypto, "getRandomValues");
