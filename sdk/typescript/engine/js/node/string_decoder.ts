// `node:string_decoder`.
declare const module: { exports: unknown };

/** Decodes parts of UTF-8; other encodings part by part. */
class StringDecoder {
  readonly encoding: string;
  readonly #utf8: TextDecoder | undefined;

  constructor(encoding = "utf8") {
    this.encoding = encoding;
    if (/^utf-?8$/i.test(encoding)) this.#utf8 = new TextDecoder();
  }

  write(part: Uint8Array): string {
    return this.#utf8 ? this.#utf8.decode(part, { stream: true }) : Buffer.from(part).toString(this.encoding as BufferEncoding);
  }

  end(part: Uint8Array = new Uint8Array()): string {
    return this.#utf8 ? this.#utf8.decode(part) : this.write(part);
  }
}

module.exports = { StringDecoder };
