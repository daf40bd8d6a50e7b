// `TextEncoder` and `TextDecoder`.
import { bytesOf, isArrayBuffer } from "./bytes.ts";
import { defineInterface, dictionary, need, usv } from "./define.ts";

class TextEncoder {
  #brand: undefined;

  get encoding(): string {
    this.#brand;
    return "utf-8";
  }

  encode(input: string | undefined = ""): Uint8Array<ArrayBuffer> {
    this.#brand;
    return native.utf8Encode(usv(input));
  }

  encodeInto(source: string, destination: Uint8Array): { read: number; written: number } {
    this.#brand;
    need(2, arguments.length, "TextEncoder.encodeInto");
    if (!(destination instanceof Uint8Array)) throw new TypeError('The "dest" argument must be an instance of Uint8Array.');
    const [read, bytes] = native.utf8EncodePrefix(usv(source), destination.length);
    if (bytes.length > 0) destination.set(bytes);
    return { read, written: bytes.length };
  }
}
defineInterface(TextEncoder, "TextEncoder");

const NOTHING = new Uint8Array(0);

class TextDecoder {
  #encoding = "utf-8";
  #fatal = false;
  #ignoreBOM = false;
  /** The native decoder of a text of which parts were decoded. */
  #open: number | undefined = undefined;

  constructor(label: string | undefined = undefined, options: TextDecoderOptions | null | undefined = undefined) {
    if (label !== undefined) {
      const found = native.encodingName(usv(label));
      if (found === undefined) {
        throw Object.assign(new RangeError(`The "${label}" encoding is not supported`), { code: "ERR_ENCODING_NOT_SUPPORTED" });
      }
      this.#encoding = found;
    }
    if (options === undefined) return;
    const { fatal, ignoreBOM } = dictionary(options, "The options");
    this.#fatal = !!fatal;
    this.#ignoreBOM = !!ignoreBOM;
  }

  get encoding(): string {
    return this.#encoding;
  }
  get fatal(): boolean {
    return this.#fatal;
  }
  get ignoreBOM(): boolean {
    return this.#ignoreBOM;
  }

  decode(input: AllowSharedBufferSource | undefined = undefined, options: TextDecodeOptions | null | undefined = undefined): string {
    this.#encoding;
    const stream = options !== undefined && !!dictionary<TextDecodeOptions>(options, "The options").stream;
    const bytes = input === undefined ? NOTHING : source(input);
    try {
      if (stream || this.#open !== undefined) {
        this.#open ??= native.decoderOpen(this.#encoding, this.#fatal, this.#ignoreBOM);
        const text = native.decoderPush(this.#open, bytes, !stream);
        if (!stream) this.#open = undefined;
        return text;
      }
      if (this.#encoding === "utf-8") return native.utf8Decode(bytes, this.#fatal, this.#ignoreBOM);
      return native.decode(this.#encoding, bytes, this.#fatal, this.#ignoreBOM);
    } catch (error) {
      this.#open = undefined;
      if (error instanceof TypeError) Object.assign(error, { code: "ERR_ENCODING_INVALID_ENCODED_DATA" });
      throw error;
    }
  }
}
defineInterface(TextDecoder, "TextDecoder");

function source(input: AllowSharedBufferSource): ArrayBuffer | ArrayBufferView {
  if (ArrayBuffer.isView(input) || isArrayBuffer(input)) return input;
  if (typeof SharedArrayBuffer !== "undefined" && (input as unknown) instanceof SharedArrayBuffer) return new Uint8Array(input).slice();
  throw Object.assign(new TypeError('The "list" argument must be an instance of SharedArrayBuffer, ArrayBuffer or ArrayBufferView.'), {
    code: "ERR_INVALID_ARG_TYPE",
  });
}

/** The text of UTF-8 bytes, as bodies are decoded. */
export function utf8Text(bytes: ArrayBuffer | ArrayBufferView): string {
  return native.utf8Decode(bytesOf(bytes), false, false);
}

export { TextDecoder, TextEncoder };
