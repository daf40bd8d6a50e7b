// The natives of src/bindings: functions in Rust. They throw `TypeError`, `RangeError`, `SyntaxError`, or a `DOMException`.

/** src/bindings/host.rs */
interface NativeHost {
  print(line: string): void;
}

/** A serialized URL, and the places of its components in it. */
type UrlParts = [
  href: string,
  schemeEnd: number,
  username: number,
  usernameEnd: number,
  password: number,
  passwordEnd: number,
  host: number,
  hostEnd: number,
  port: number,
  portEnd: number,
  path: number,
  pathEnd: number,
  queryEnd: number,
];

type UrlComponent = "protocol" | "username" | "password" | "host" | "hostname" | "port" | "pathname" | "search" | "hash";

type Binary = ArrayBuffer | ArrayBufferView;

/** src/bindings/web.rs: strings have no lone surrogates. */
interface NativeWeb {
  utf8Encode(text: string): Uint8Array<ArrayBuffer>;
  /** The longest prefix whose UTF-8 fits: its length, and the bytes. */
  utf8EncodePrefix(text: string, capacity: number): [read: number, bytes: Uint8Array<ArrayBuffer>];
  utf8Decode(bytes: Binary, fatal: boolean, keepMark: boolean): string;
  /** The name of the encoding with this label. */
  encodingName(label: string): string | undefined;
  decode(encoding: string, bytes: Binary, fatal: boolean, keepMark: boolean): string;
  decoderOpen(encoding: string, fatal: boolean, keepMark: boolean): number;
  /** The last chunk, and an error, end the decoder. */
  decoderPush(decoder: number, bytes: Binary, last: boolean): string;
  /** A character per byte. */
  latin1(bytes: Binary): string;
  urlParse(url: string, base: string | undefined): UrlParts | undefined;
  /** The URL with another value of a component. */
  urlSet(href: string, component: UrlComponent, value: string): UrlParts | undefined;
  queryPairs(query: string | Binary): [names: string[], values: string[]];
  queryText(names: string[], values: string[]): string;
  /** Four items for each part: name, file name, type, body. */
  multipartParse(body: Binary, boundary: string): unknown[];
  compressionOpen(format: string, compress: boolean): number;
  /** The last chunk, and an error, end the stream. */
  compressionPush(stream: number, bytes: Binary, last: boolean): Uint8Array<ArrayBuffer>;
}

/** src/bindings/crypto.rs */
interface NativeCrypto {}

declare const native: NativeHost & NativeWeb & NativeCrypto;
