// `Blob` and `File`. The bytes are in memory.
import { bytesOf, isBinary, joined } from "./bytes.ts";
import { defineInterface, dictionary, need, usv } from "./define.ts";
import { utf8Text } from "./encoding.ts";
import { lazyStream } from "./lazy-stream.ts";
import type { AnyStream } from "./streams.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** The bytes of a blob, which must not be changed. */
export let blobBytes: (blob: Blob) => Bytes;
/** A blob of bytes that no code changes. */
export let blobOf: (bytes: Bytes, type: string) => Blob;
export let isBlob: (value: unknown) => value is Blob;

class Blob {
  #bytes: Bytes;
  #type = "";

  constructor(parts: Iterable<BlobPart> | undefined = undefined, options: BlobPropertyBag | null | undefined = undefined) {
    const pieces: (string | Bytes)[] = [];
    if (parts !== undefined) {
      if (parts === null || typeof parts !== "object" || typeof parts[Symbol.iterator] !== "function") {
        throw Object.assign(new TypeError("The provided value cannot be converted to a sequence."), { code: "ERR_INVALID_ARG_TYPE" });
      }
      for (const part of parts) pieces.push(pieceOf(part));
    }
    const { endings, type } = settings(options);
    this.#type = type;
    this.#bytes = joined(pieces.map((piece) => (typeof piece === "string" ? encode(piece, endings) : piece)));
  }

  static {
    blobBytes = (blob) => blob.#bytes;
    blobOf = (bytes, type) => {
      const blob = new Blob();
      blob.#bytes = bytes;
      blob.#type = type;
      return blob;
    };
    isBlob = (value): value is Blob => typeof value === "object" && value !== null && #bytes in value;
  }

  get size(): number {
    return this.#bytes.byteLength;
  }

  get type(): string {
    return this.#type;
  }

  slice(start: number | undefined = undefined, end: number | undefined = undefined, type: string | undefined = undefined): Blob {
    const { size } = this;
    const from = place(start, 0, size);
    const to = place(end, size, size);
    return blobOf(this.#bytes.subarray(from, Math.max(from, to)), type === undefined ? "" : typeOf(type));
  }

  stream(): AnyStream {
    return lazyStream(this.#bytes);
  }

  async text(): Promise<string> {
    return utf8Text(this.#bytes);
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return this.#bytes.slice().buffer;
  }

  async bytes(): Promise<Uint8Array> {
    return this.#bytes.slice();
  }
}
defineInterface(Blob, "Blob");

class File extends Blob {
  #name: string;
  #lastModified: number;

  constructor(parts: Iterable<BlobPart>, name: string, options: FilePropertyBag | null | undefined = undefined) {
    need(2, arguments.length, "File constructor");
    if (parts === undefined) throw new TypeError("The provided value cannot be converted to a sequence.");
    super(parts, options);
    this.#name = usv(name);
    const { lastModified } = dictionary<FilePropertyBag>(options, "The options");
    this.#lastModified = lastModified === undefined ? Date.now() : Math.trunc(Number(lastModified)) || 0;
  }

  get name(): string {
    return this.#name;
  }

  get lastModified(): number {
    return this.#lastModified;
  }

  get webkitRelativePath(): string {
    this.#name;
    return "";
  }
}
defineInterface(File, "File");

export { Blob, File };

function settings(options: BlobPropertyBag | null | undefined): { endings: EndingType; type: string } {
  if (options === undefined || options === null) return { endings: "transparent", type: "" };
  const { endings, type } = dictionary<BlobPropertyBag>(options, "The options");
  const ends = endings === undefined ? "transparent" : `${endings}`;
  if (ends !== "transparent" && ends !== "native") throw new TypeError(`The endings "${ends}" are neither "transparent" nor "native".`);
  return { endings: ends, type: type === undefined ? "" : typeOf(type) };
}

function typeOf(type: unknown): string {
  const text = `${type as string}`;
  return /^[ -~]*$/.test(text) ? text.toLowerCase() : "";
}

function pieceOf(part: unknown): string | Bytes {
  if (isBinary(part)) return bytesOf(part).slice();
  return isBlob(part) ? blobBytes(part) : usv(part);
}

function encode(text: string, endings: EndingType): Bytes {
  return native.utf8Encode(endings === "native" ? text.replace(/\r\n?/g, "\n") : text);
}

/** An offset of `slice`: a `long long` with clamping. */
function place(value: unknown, missing: number, size: number): number {
  if (value === undefined) return missing;
  const number = Number(value);
  const whole = Number.isNaN(number) ? 0 : Math.round(number);
  return whole < 0 ? Math.max(size + whole, 0) : Math.min(whole, size);
}
