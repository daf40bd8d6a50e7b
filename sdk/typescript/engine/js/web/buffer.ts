// `Buffer`: the package of that name, with the encoding `base64url` of Node, and with the engine's own conversions of text.
import { Buffer } from "buffer";
import { usv } from "./define.ts";

type Bytes = Uint8Array<ArrayBuffer>;
interface NativeBytes {
  toBase64(options?: { alphabet?: "base64url"; omitPadding?: boolean }): string;
  toHex(): string;
}

const { toBase64, toHex } = Uint8Array.prototype as unknown as NativeBytes;
const { fromBase64 } = Uint8Array as unknown as { fromBase64(text: string): Bytes };
const { from, isEncoding, byteLength } = Buffer;
const { toString, write } = Buffer.prototype;

/** The bytes of a text, for the encodings that this file has. */
function bytesOfText(text: string, encoding: string): Bytes | undefined {
  switch (encoding) {
    case "utf8":
    case "utf-8":
      return native.utf8Encode(usv(text));
    case "base64":
    case "base64url":
      return fromBase64(base64Digits(text));
    default:
      return undefined;
  }
}

/** The digits of base64 in one alphabet. As in Node, all other characters are skipped, and an equals sign is the end. */
function base64Digits(text: string): string {
  const end = text.indexOf("=");
  const digits = (end < 0 ? text : text.slice(0, end)).replace(/[^A-Za-z0-9+/]/g, (char) => (char === "-" ? "+" : char === "_" ? "/" : ""));
  // A single digit of a group has no whole byte.
  return digits.length % 4 === 1 ? digits.slice(0, -1) : digits;
}

const named = (encoding: unknown) => (encoding === undefined ? "utf8" : `${encoding as string}`.toLowerCase());

const statics = {
  from(value: unknown, encoding?: unknown, length?: number) {
    const bytes = typeof value === "string" ? bytesOfText(value, named(encoding)) : undefined;
    return bytes ? Object.setPrototypeOf(bytes, Buffer.prototype) : from(value as never, encoding as never, length as never);
  },
  isEncoding: (encoding: unknown) => named(encoding) === "base64url" || isEncoding(encoding as string),
  byteLength: (value: unknown, encoding?: unknown) =>
    (typeof value === "string" ? bytesOfText(value, named(encoding))?.byteLength : undefined) ?? byteLength(value as never, encoding as never),
};

const methods = {
  toString(this: Bytes, encoding?: unknown, start: number = 0, end: number = this.length) {
    const name = named(encoding);
    const part = start === 0 && end >= this.length ? this : Uint8Array.prototype.subarray.call(this, Math.max(start, 0), Math.max(end, 0));
    if (name === "utf8" || name === "utf-8") return native.utf8Decode(part, false, true);
    if (name === "hex") return toHex.call(part);
    if (name === "base64") return toBase64.call(part);
    if (name === "base64url") return toBase64.call(part, { alphabet: "base64url", omitPadding: true });
    return toString.call(this, encoding as never, start, end);
  },
  write(this: Bytes, text: string, ...rest: unknown[]) {
    const encoding = rest.find((it) => typeof it === "string");
    if (named(encoding) !== "base64url") return write.call(this, text, ...(rest as []));
    const bytes = fromBase64(base64Digits(text));
    const [offset = 0, length = this.length - offset] = rest.filter((it) => typeof it === "number");
    const part = bytes.subarray(0, Math.min(length, this.length - offset));
    this.set(part, offset);
    return part.length;
  },
};

for (const [target, members] of [
  [Buffer, statics],
  [Buffer.prototype, methods],
] as const) {
  for (const [name, value] of Object.entries(members)) Object.defineProperty(target, name, { value, writable: true, enumerable: true, configurable: true });
}

export { Buffer };
