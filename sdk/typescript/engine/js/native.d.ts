// The natives of src/bindings: functions in Rust. They throw `TypeError`, `RangeError`, `SyntaxError`, or a `DOMException`.

/** src/bindings/host.rs */
interface NativeHost {
  print(line: string): void;
}

/** src/bindings/web.rs */
interface NativeWeb {
  utf8Encode(text: string): Uint8Array<ArrayBuffer>;
  utf8Decode(bytes: ArrayBuffer | ArrayBufferView, fatal: boolean): string;
}

/** src/bindings/crypto.rs */
interface NativeCrypto {}

declare const native: NativeHost & NativeWeb & NativeCrypto;
