// `Buffer`, by the package `buffer`, with the engine's own code for the usual encodings of whole strings.
import { Buffer } from "buffer/";

const encoder = new TextEncoder();
// As Node does: no error, and the mark of the byte order stays.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

interface Coder {
  decode(text: string): Uint8Array;
  encode(bytes: Uint8Array): string;
}

/** Methods of `Uint8Array` that TypeScript does not know yet. */
interface Base64Array extends Uint8Array {
  toBase64(options?: { alphabet?: "base64url"; omitPadding?: boolean }): string;
  toHex(): string;
}
interface Base64Constructor {
  fromBase64(text: string): Uint8Array;
  fromHex(text: string): Uint8Array;
}
const bytesOf = Uint8Array as unknown as Base64Constructor;
const { toBase64, toHex } = Uint8Array.prototype as Base64Array;

const hex: Coder = {
  // Node stops at the first pair without a number.
  decode: (text) => bytesOf.fromHex(/^(?:[\da-f]{2})*/i.exec(text)?.[0] ?? ""),
  encode: (bytes) => toHex.call(bytes),
};

const utf8: Coder = { decode: (text) => encoder.encode(text), encode: (bytes) => decoder.decode(bytes) };

const CODERS: Record<string, Coder | undefined> = {
  utf8,
  "utf-8": utf8,
  hex,
  base64: { decode: decodeBase64, encode: (bytes) => toBase64.call(bytes) },
  base64url: { decode: decodeBase64, encode: (bytes) => toBase64.call(bytes, { alphabet: "base64url", omitPadding: true }) },
};

/** Both alphabets; other characters are skipped, and the first `=` is the end. */
function decodeBase64(text: string): Uint8Array {
  const end = text.indexOf("=");
  let digits = end < 0 ? text : text.slice(0, end);
  if (/[^\w+/-]|_|-/.test(digits)) digits = digits.replace(/[^A-Za-z0-9+/_-]/g, "").replaceAll("-", "+").replaceAll("_", "/");
  // A last digit alone has no byte.
  if (digits.length % 4 === 1) digits = digits.slice(0, -1);
  return bytesOf.fromBase64(digits);
}

const { from, byteLength } = Buffer;
const { toString } = Buffer.prototype;

/** Bytes as a `Buffer`, without a copy. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Object.setPrototypeOf(bytes, Buffer.prototype) as Buffer;
}

const define = (target: object, name: string, value: unknown) =>
  Object.defineProperty(target, name, { value, writable: true, enumerable: false, configurable: true });

define(Buffer, "from", function (this: unknown, value: unknown, encoding?: unknown, length?: number) {
  const coder = typeof value === "string" ? CODERS[String(encoding ?? "utf8").toLowerCase()] : undefined;
  if (coder) return asBuffer(coder.decode(value as string));
  return (from as (...args: unknown[]) => Buffer).call(Buffer, value, encoding, length);
});
define(Buffer, "byteLength", function (value: string | Uint8Array, encoding = "utf8") {
  const coder = typeof value === "string" ? CODERS[encoding.toLowerCase()] : undefined;
  return coder ? coder.decode(value as string).length : byteLength.call(Buffer, value, encoding);
});
define(Buffer, "isEncoding", (name: unknown) =>
  ["hex", "utf8", "utf-8", "ascii", "latin1", "binary", "base64", "base64url", "ucs2", "ucs-2", "utf16le", "utf-16le"].includes(String(name).toLowerCase()),
);
define(Buffer.prototype, "toString", function (this: Buffer, encoding = "utf8", start = 0, end = this.length) {
  const coder = CODERS[String(encoding).toLowerCase()];
  if (!coder) return toString.call(this, encoding, start, end);
  return coder.encode(start === 0 && end >= this.length ? this : this.subarray(start, end));
});

define(globalThis, "Buffer", Buffer);
