// The engine's own `crypto.subtle`, before it is replaced.
const { subtle } = crypto;

/** The methods of the engine's own `crypto.subtle`. */
export const native = {
  digest: subtle.digest.bind(subtle),
  importKey: subtle.importKey.bind(subtle) as SubtleCrypto["importKey"],
  sign: subtle.sign.bind(subtle),
  verify: subtle.verify.bind(subtle),
};
