// The natives of src/bindings: functions in Rust. They throw `TypeError`, `RangeError`, `SyntaxError`, or a `DOMException`.

/** src/bindings/host.rs, and js/network.ts */
interface NativeHost {
  /** Evaluates a script, whose stacks have `file`. */
  compile(file: string, script: string): unknown;

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
  verify(token: string, profile?: string): string;

  /** The wall clock, in ms since 1970; 0 at build. */
  now(): number;
  /** A monotonic clock, in ms with fractions; 0 at build. */
  monotonic(): number;
  /** 64 bits of randomness, in two numbers. */
  randomSeed(): [number, number];

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

/** src/bindings/web.rs */
interface NativeWeb {
  utf8Encode(text: string): Uint8Array<ArrayBuffer>;
  utf8Decode(bytes: ArrayBuffer | ArrayBufferView, fatal: boolean): string;
}

/** src/bindings/crypto.rs */
interface NativeCrypto {}

declare const native: NativeHost & NativeWeb & NativeCrypto;
