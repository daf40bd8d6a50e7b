// Binary data as Web IDL's `BufferSource`.

const toStringTag = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)!.get!;

/** Whether a value is an `ArrayBuffer` (not a shared one). */
export function isArrayBuffer(value: unknown): value is ArrayBuffer {
  return value instanceof ArrayBuffer || Object.prototype.toString.call(value) === "[object ArrayBuffer]";
}

/** Whether a value is an `ArrayBuffer` or a view. */
export function isBinary(value: unknown): value is ArrayBuffer | ArrayBufferView {
  return ArrayBuffer.isView(value) || isArrayBuffer(value);
}

/** The bytes of a buffer or view, without a copy. */
export function bytesOf(value: ArrayBuffer | ArrayBufferView): Uint8Array<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) {
    return toStringTag.call(value) === "Uint8Array"
      ? (value as Uint8Array<ArrayBuffer>)
      : new Uint8Array(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength);
  }
  return new Uint8Array(value);
}

/** Pieces as one array; a single piece is not copied. */
export function joined(pieces: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  if (pieces.length === 1) return pieces[0] as Uint8Array<ArrayBuffer>;
  let length = 0;
  for (const piece of pieces) length += piece.byteLength;
  const all = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.byteLength;
  }
  return all;
}
