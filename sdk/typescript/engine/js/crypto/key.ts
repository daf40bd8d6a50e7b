// `CryptoKey`. The bytes of a key are in a private field, which `materialOf` reads.

/** The parameters of a key, as `key.algorithm` shows them. */
export interface KeyParams {
  name: string;
  hash?: { name: string };
  length?: number;
  namedCurve?: string;
  modulusLength?: number;
  publicExponent?: Uint8Array;
}

/** What a key is made of. */
export interface Material {
  type: KeyType;
  algorithm: KeyParams;
  extractable: boolean;
  usages: KeyUsage[];
  /** The secret key; for asymmetric keys what src/crypto/keys.rs says. */
  bytes: Uint8Array<ArrayBuffer>;
  /** `RSA` or the name of the curve; empty for secret keys. */
  family: string;
}

/** The material of a key. */
export let materialOf: (key: CryptoKey) => Material;

/** Only this file has it, so that an app cannot construct keys. */
const token = Symbol();

/** The standard's interface of a key. */
export class CryptoKey {
  readonly #material: Material;
  // Objects that the app gets are copies, the same ones each time: to change them changes nothing.
  #algorithm: KeyParams | undefined;
  #usages: KeyUsage[] | undefined;

  static {
    materialOf = (key) => key.#material;
  }

  constructor(secret?: unknown, material?: Material) {
    if (secret !== token) throw new TypeError("Illegal constructor");
    this.#material = material as Material;
  }

  get type(): KeyType {
    return this.#material.type;
  }

  get extractable(): boolean {
    return this.#material.extractable;
  }

  get algorithm(): KeyParams {
    const { algorithm } = this.#material;
    if (!this.#algorithm) {
      const { hash, publicExponent } = algorithm;
      this.#algorithm = { ...algorithm, ...(hash && { hash: { ...hash } }), ...(publicExponent && { publicExponent: publicExponent.slice() }) };
    }
    return this.#algorithm;
  }

  get usages(): KeyUsage[] {
    return (this.#usages ??= [...this.#material.usages]);
  }
}

/** Makes a key. */
export function makeKey(material: Material): CryptoKey {
  return new CryptoKey(token, material);
}
