// `crypto`, installed into the global scope.
import { CryptoKey } from "./key.ts";
import { subtle, SubtleCrypto } from "./subtle.ts";

const token = Symbol();

/** The standard's limit of one call. */
const MAX_RANDOM_BYTES = 65536;

const INTEGERS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];

class Crypto {
  constructor(secret?: unknown) {
    if (secret !== token) throw new TypeError("Illegal constructor");
  }

  get subtle(): SubtleCrypto {
    return subtle;
  }

  getRandomValues<View extends ArrayBufferView>(view: View): View {
    if (!INTEGERS.some((type) => view instanceof type)) throw new DOMException("The data argument must be an integer-type TypedArray", "TypeMismatchError");
    if (view.byteLength > MAX_RANDOM_BYTES) {
      throw new DOMException(`The requested length exceeds ${MAX_RANDOM_BYTES} bytes`, "QuotaExceededError");
    }
    new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(native.random(view.byteLength));
    return view;
  }

  randomUUID(): string {
    const bytes = native.random(16);
    bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
    let text = "";
    for (let index = 0; index < 16; index++) {
      if (index === 4 || index === 6 || index === 8 || index === 10) text += "-";
      text += ((bytes[index] as number) + 256).toString(16).slice(1);
    }
    return text;
  }
}

for (const [name, type] of Object.entries({ Crypto, CryptoKey, SubtleCrypto })) {
  // Web IDL: members of an interface are enumerable.
  for (const member of Object.getOwnPropertyNames(type.prototype)) {
    if (member !== "constructor") Object.defineProperty(type.prototype, member, { enumerable: true });
  }
  Object.defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });
  Object.defineProperty(globalThis, name, { value: type, writable: true, configurable: true });
}

const crypto = new Crypto(token);

/** What the substitutes for Node's modules are made of. They are part of the app, which has no natives. */
Object.defineProperty(crypto, Symbol.for("tidegate.crypto"), { value: Object.freeze(synchronous()) });

Object.defineProperty(globalThis, "crypto", { get: () => crypto, enumerable: true, configurable: true });

function synchronous(): Record<string, unknown> {
  const names = [
    ...["random", "equal", "digest", "hmac", "hkdf", "pbkdf2", "scrypt", "aesCbc", "aesCtr", "aesGcm", "rsaOaep", "fromBase64Url", "toBase64Url"],
    ...["keyFamily", "spkiOfCertificate", "keyImport", "keyExport", "keyImportJwk", "keyExportJwk", "keyGenerate", "keyPublic", "agree", "sign", "verify"],
  ] as (keyof NativeCrypto)[];
  // Looked up at each call: while the build evaluates the app, other functions take the place of those that read randomness.
  const call = (name: keyof NativeCrypto) => (...args: unknown[]) => (native[name] as (...args: unknown[]) => unknown)(...args);
  return Object.fromEntries(names.map((name) => [name, call(name)]));
}
