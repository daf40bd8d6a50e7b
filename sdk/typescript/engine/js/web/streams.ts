// Streams: the package web-streams-polyfill, and the transform streams on top of it.
import { ReadableStream, TransformStream, WritableStream, type TransformStreamDefaultController } from "web-streams-polyfill";
import { bytesOf, isBinary } from "./bytes.ts";
import { defineInterface, need } from "./define.ts";
import { TextDecoder } from "./encoding.ts";

export type AnyStream = ReadableStream<any>;

/** Whether a value is a readable stream. */
export function isStream(value: unknown): value is AnyStream {
  return value instanceof ReadableStream;
}

/** All chunks of a stream of bytes. */
export async function readAll(stream: AnyStream): Promise<Uint8Array<ArrayBuffer>[]> {
  const reader = stream.getReader();
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return chunks;
    if (!(value instanceof Uint8Array)) {
      const error = new TypeError("Received non-Uint8Array chunk");
      reader.cancel(error).catch(() => {});
      throw error;
    }
    chunks.push(value as Uint8Array<ArrayBuffer>);
  }
}

// The package does not find the engine's prototype of asynchronous iterators.
Object.setPrototypeOf(
  Object.getPrototypeOf(new ReadableStream().values()),
  Object.getPrototypeOf(Object.getPrototypeOf(Object.getPrototypeOf((async function* () {})()))) as object,
);

/** A pair of streams of an interface such as `TextDecoderStream`. */
class Pair {
  #transform: TransformStream;
  constructor(transformer: Transformer) {
    this.#transform = new TransformStream(transformer as any, undefined, { highWaterMark: 0 });
  }
  get readable(): AnyStream {
    return this.#transform.readable;
  }
  get writable(): WritableStream {
    return this.#transform.writable;
  }
}

/** The parent of these interfaces must not be seen in their prototype chain. */
function hideParent(type: Function, name: string): void {
  for (const key of ["readable", "writable"]) {
    const property = Object.getOwnPropertyDescriptor(Pair.prototype, key) as PropertyDescriptor;
    Object.defineProperty(type.prototype, key, { ...property, enumerable: true });
  }
  Object.setPrototypeOf(type.prototype, Object.prototype);
  defineInterface(type, name);
}

class TextEncoderStream extends Pair {
  #brand: undefined;

  constructor() {
    /** The first half of a surrogate pair that ended a chunk. */
    let half = "";
    super({
      transform(chunk, controller) {
        let text = half + `${chunk}`;
        half = "";
        const last = text.charCodeAt(text.length - 1);
        if (last >= 0xd800 && last <= 0xdbff) {
          half = text.slice(-1);
          text = text.slice(0, -1);
        }
        if (text !== "") controller.enqueue(native.utf8Encode(text.toWellFormed()));
      },
      flush(controller) {
        if (half !== "") controller.enqueue(Uint8Array.of(0xef, 0xbf, 0xbd));
      },
    });
  }

  get encoding(): string {
    this.#brand;
    return "utf-8";
  }
}
hideParent(TextEncoderStream, "TextEncoderStream");

class TextDecoderStream extends Pair {
  #decoder: TextDecoder;

  constructor(label: string | undefined = undefined, options: TextDecoderOptions | undefined = undefined) {
    const decoder = new TextDecoder(label, options);
    super({
      transform(chunk, controller) {
        if (chunk === undefined) throw new TypeError("The chunk is not an ArrayBuffer or a view of one.");
        const text = decoder.decode(chunk, { stream: true });
        if (text !== "") controller.enqueue(text);
      },
      flush(controller) {
        const text = decoder.decode();
        if (text !== "") controller.enqueue(text);
      },
    });
    this.#decoder = decoder;
  }

  get encoding(): string {
    return this.#decoder.encoding;
  }
  get fatal(): boolean {
    return this.#decoder.fatal;
  }
  get ignoreBOM(): boolean {
    return this.#decoder.ignoreBOM;
  }
}
hideParent(TextDecoderStream, "TextDecoderStream");

function coder(format: unknown, compress: boolean): Transformer {
  const id = native.compressionOpen(`${format as string}`, compress);
  const push = (bytes: Uint8Array, last: boolean, controller: TransformStreamDefaultController<Uint8Array>) => {
    const out = native.compressionPush(id, bytes, last);
    if (out.byteLength > 0) controller.enqueue(out);
  };
  return {
    transform(chunk, controller) {
      if (!isBinary(chunk)) throw new TypeError("The chunk is not an ArrayBuffer or a view of one.");
      push(bytesOf(chunk), false, controller as any);
    },
    flush: (controller) => push(new Uint8Array(0), true, controller as any),
  };
}

class CompressionStream extends Pair {
  constructor(format: string) {
    need(1, arguments.length, "CompressionStream constructor");
    super(coder(format, true));
  }
}
hideParent(CompressionStream, "CompressionStream");

class DecompressionStream extends Pair {
  constructor(format: string) {
    need(1, arguments.length, "DecompressionStream constructor");
    super(coder(format, false));
  }
}
hideParent(DecompressionStream, "DecompressionStream");

export {
  ByteLengthQueuingStrategy,
  CountQueuingStrategy,
  ReadableByteStreamController,
  ReadableStreamBYOBReader,
  ReadableStreamBYOBRequest,
  ReadableStreamDefaultController,
  ReadableStreamDefaultReader,
  TransformStreamDefaultController,
  WritableStreamDefaultController,
  WritableStreamDefaultWriter,
} from "web-streams-polyfill";
export { CompressionStream, DecompressionStream, ReadableStream, TextDecoderStream, TextEncoderStream, TransformStream, WritableStream };
