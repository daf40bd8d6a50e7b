// The natives of src/bindings: functions in Rust. They throw `TypeError`, `RangeError`, `SyntaxError`, or a `DOMException`.

/** src/bindings/host.rs, and js/network.ts */
interface NativeHost {
  /** The function of a module of the program: at build, or of a spare module that the build did not ask for. Throws its `SyntaxError`. */
  module(id: string): unknown;
  /** Calls `work`. If its code is interrupted at build because it does not end, an error is thrown that can be caught. */
  interruptible(work: () => unknown): unknown;

  log(level: string, line: string): void;
  contextNow(): number;
  requestId(): string;
  action(): string;
  setting(name: string): string | undefined;
  reason(text: string): void;
  replaySince(time: number): void;
  cacheFor(seconds: number, vary: string[]): void;
  cacheAnyAddress(): void;
  /** Host calls throw `{ payload: { tag, val } }`, as src/imports.ts expects it. */
  lookup(key: string): Uint8Array | undefined;
  lookupHash(key: string, field: string): Uint8Array | undefined;
  lookupSet(key: string, member: string): boolean;
  verifyToken(token: string, profile?: string): string;

  /** The wall clock, in ms since 1970; 0 at build. */
  now(): number;
  /** A monotonic clock, in ms with fractions; 0 at build. */
  monotonic(): number;
  /** 64 bits of randomness, in two numbers. */
  randomSeed(): [number, number];

  /** At build: whether randomness was read since the last call. */
  wasRandomnessRead(): boolean;

  networkSend(id: number, method: string, url: string, fields: string[], body: Uint8Array | null): void;
  networkRead(id: number): void;
  networkCancel(id: number): void;

  /** Sends a request; header fields are flat. Returns its id. */
  fetchStart(method: string, url: string, fields: string[], body: Uint8Array | null): number;
  /** The head of the response. Rejects with a `TypeError`. */
  fetchHead(id: number): Promise<{ status: number; headers: string[] }>;
  /** The next part of the body; `null` at its end. Rejects with a `TypeError`. */
  fetchRead(id: number): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Drops the request. Pending promises of it never settle. */
  fetchCancel(id: number): void;
}

/** A serialized URL, and the positions of its components in it. */
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
  /** A valid name of a header in lower case. */
  headerName(name: string): string | undefined;
  /** Whether a value of a header is valid as it is: visible characters of ASCII, with blanks only inside. */
  isHeaderValue(value: string): boolean;
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
interface NativeCrypto {
  /** The only source of randomness of scripts; `keyGenerate`, `sign` and `rsaOaep` read the host's themselves. */
  random(length: number): Uint8Array<ArrayBuffer>;
  /** Compares in constant time. */
  equal(left: NativeBytes, right: NativeBytes): boolean;
  digest(hash: string, data: NativeBytes): Uint8Array<ArrayBuffer>;
  hmac(hash: string, key: NativeBytes, data: NativeBytes): Uint8Array<ArrayBuffer>;
  hkdf(hash: string, secret: NativeBytes, salt: NativeBytes, info: NativeBytes, length: number): Uint8Array<ArrayBuffer>;
  pbkdf2(hash: string, password: NativeBytes, salt: NativeBytes, iterations: number, length: number): Uint8Array<ArrayBuffer>;
  scrypt(password: NativeBytes, salt: NativeBytes, cost: [n: number, r: number, p: number], length: number): Uint8Array<ArrayBuffer>;
  aesCbc(encrypt: boolean, key: NativeBytes, iv: NativeBytes, data: NativeBytes, padding: boolean): Uint8Array<ArrayBuffer>;
  aesCtr(key: NativeBytes, counter: NativeBytes, length: number, data: NativeBytes): Uint8Array<ArrayBuffer>;
  /** `tagLength` is in bytes. */
  aesGcm(encrypt: boolean, key: NativeBytes, iv: NativeBytes, additionalData: NativeBytes, tagLength: number, data: NativeBytes): Uint8Array<ArrayBuffer>;
  aesKw(encrypt: boolean, key: NativeBytes, data: NativeBytes): Uint8Array<ArrayBuffer>;
  rsaOaep(encrypt: boolean, key: NativeBytes, hash: string, label: NativeBytes, data: NativeBytes): Uint8Array<ArrayBuffer>;
  fromBase64Url(text: string): Uint8Array<ArrayBuffer>;
  toBase64Url(bytes: NativeBytes): string;
  /** `family` is `RSA` or the name of a curve, `format` is `raw`, `spki`, `pkcs8` or `traditional`; src/crypto/keys.rs says what a key's bytes are. */
  keyFamily(format: string, der: NativeBytes): string;
  spkiOfCertificate(der: NativeBytes): Uint8Array<ArrayBuffer>;
  keyImport(family: string, format: string, key: NativeBytes): Uint8Array<ArrayBuffer>;
  keyExport(family: string, format: string, key: NativeBytes): Uint8Array<ArrayBuffer>;
  keyImportJwk(family: string, members: string[]): Uint8Array<ArrayBuffer>;
  keyExportJwk(family: string, key: NativeBytes, isPrivate: boolean): string[];
  keyGenerate(family: string): Uint8Array<ArrayBuffer>;
  keyPublic(family: string, privateKey: NativeBytes): Uint8Array<ArrayBuffer>;
  agree(family: string, privateKey: NativeBytes, publicKey: NativeBytes): Uint8Array<ArrayBuffer>;
  /** A negative `saltLength` is none. */
  sign(names: SignatureNames, saltLength: number, privateKey: NativeBytes, data: NativeBytes): Uint8Array<ArrayBuffer>;
  verify(names: SignatureNames, saltLength: number, publicKey: NativeBytes, data: NativeBytes, signature: NativeBytes): boolean;
}

type NativeBytes = ArrayBuffer | ArrayBufferView;
type SignatureNames = [algorithm: string, family: string, hash: string];

declare const native: NativeHost & NativeWeb & NativeCrypto;
