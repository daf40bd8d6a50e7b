// `node:buffer`.
declare const module: { exports: unknown };

module.exports = {
  Buffer,
  Blob,
  File: globalThis.File,
  atob,
  btoa,
  constants: { MAX_LENGTH: 2 ** 31 - 1, MAX_STRING_LENGTH: 2 ** 29 },
  isAscii: (bytes: Uint8Array) => bytes.every((byte) => byte < 128),
  isUtf8(bytes: Uint8Array) {
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes);
      return true;
    } catch {
      return false;
    }
  },
  kMaxLength: 2 ** 31 - 1,
};
