// The engine's own `crypto.subtle`, before it is put right.
const { subtle } = crypto;

/** What it can do. */
export const native = {
  digest: subtle.digest.bind(subtle),
  importKey: subtle.importKey.bind(subtle) as SubtleCrypto["importKey"],
  sign: subtle.sign.bind(subtle),
  verify: subtle.verify.bind(subtle),
};
