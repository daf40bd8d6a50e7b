// AES of `node:crypto`. The result comes with `final`: `update` only collects, which callers that join both parts do not see.
declare const module: { exports: unknown };
// biome-ignore lint: the module is CommonJS, which has no types here.
declare function require(name: string): any;

const { Parts, bytesOf, native, output, withCode } = require("./internal-crypto.ts");
const { KeyObject } = require("./internal-keys.ts");

const TAG_BYTES = 16;

class Cipher {
  readonly #mode: string;
  readonly #encrypts: boolean;
  readonly #key: Uint8Array;
  readonly #iv: Uint8Array;
  readonly #tagLength: number;
  readonly #parts = new Parts();
  readonly #additional = new Parts();
  #padding = true;
  #tag: Uint8Array | undefined;

  constructor(encrypts: boolean, name: string, key: unknown, iv: unknown, { authTagLength = TAG_BYTES }: { authTagLength?: number } = {}) {
    const [, bits, mode = ""] = /^(?:id-)?aes-?(128|192|256)-(gcm|cbc|ctr)$/i.exec(name) ?? [];
    if (!bits) throw withCode(new Error(`node:crypto: a policy has no cipher ${name}`), "ERR_CRYPTO_UNKNOWN_CIPHER");
    this.#mode = mode.toLowerCase();
    this.#encrypts = encrypts;
    this.#key = key instanceof KeyObject ? KeyObject.bytesOf(key) : bytesOf(key);
    this.#iv = bytesOf(iv);
    this.#tagLength = authTagLength;
    if (this.#key.length !== Number(bits) / 8) throw withCode(new RangeError("Invalid key length"), "ERR_CRYPTO_INVALID_KEYLEN");
  }

  update(data: string | Uint8Array, inputEncoding?: string, outputEncoding?: string): Buffer | string {
    this.#parts.add(data, inputEncoding);
    return output(new Uint8Array(), outputEncoding);
  }

  final(outputEncoding?: string): Buffer | string {
    return output(this.#result(), outputEncoding);
  }

  #result(): Uint8Array {
    const data = this.#parts.all();
    if (this.#mode === "cbc") return native.aesCbc(this.#encrypts, this.#key, this.#iv, data, this.#padding);
    if (this.#mode === "ctr") return native.aesCtr(this.#key, this.#iv, 128, data);
    const additional = this.#additional.all();
    if (this.#encrypts) {
      const sealed = native.aesGcm(true, this.#key, this.#iv, additional, this.#tagLength, data);
      this.#tag = sealed.subarray(sealed.length - this.#tagLength);
      return sealed.subarray(0, sealed.length - this.#tagLength);
    }
    if (!this.#tag) throw new Error("Unsupported state or unable to authenticate data");
    try {
      return native.aesGcm(false, this.#key, this.#iv, additional, this.#tag.length, Buffer.concat([data, this.#tag]));
    } catch {
      throw new Error("Unsupported state or unable to authenticate data");
    }
  }

  setAAD(data: string | Uint8Array): this {
    this.#additional.add(data);
    return this;
  }

  setAuthTag(tag: string | Uint8Array, encoding?: string): this {
    const bytes = bytesOf(tag, encoding);
    if (bytes.length < 4 || bytes.length > TAG_BYTES) throw withCode(new TypeError("Invalid authentication tag length"), "ERR_CRYPTO_INVALID_AUTH_TAG");
    this.#tag = bytes.slice();
    return this;
  }

  getAuthTag(): Buffer {
    if (!this.#tag) throw withCode(new Error("Invalid state for operation getAuthTag"), "ERR_CRYPTO_INVALID_STATE");
    return Buffer.from(this.#tag);
  }

  setAutoPadding(padding = true): this {
    this.#padding = padding;
    return this;
  }
}

type Arguments = [name: string, key: unknown, iv: unknown, options?: { authTagLength?: number }];

module.exports = {
  createCipheriv: (...args: Arguments) => new Cipher(true, ...args),
  createDecipheriv: (...args: Arguments) => new Cipher(false, ...args),
};
