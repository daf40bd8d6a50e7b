// The interface as bound by componentize-js.
declare module "tidegate:policy/context@0.1.0" {
  const context: import("../src/host.ts").Host["context"];
  export const now: typeof context.now, requestId: typeof context.requestId, action: typeof context.action, log: typeof context.log;
}
declare module "tidegate:policy/answer@0.1.0" {
  const answer: import("../src/host.ts").Host["answer"];
  export const reason: typeof answer.reason, replaySince: typeof answer.replaySince;
  export const cacheFor: typeof answer.cacheFor, cacheAnyAddress: typeof answer.cacheAnyAddress;
}
declare module "tidegate:policy/lookup@0.1.0" {
  const lookup: import("../src/host.ts").Host["lookup"];
  export const get: typeof lookup.get, hashGet: typeof lookup.hashGet, setContains: typeof lookup.setContains;
}
declare module "tidegate:policy/tokens@0.1.0" {
  const tokens: import("../src/host.ts").Host["tokens"];
  export const verify: typeof tokens.verify, verifyWith: typeof tokens.verifyWith;
}
declare module "tidegate:policy/settings@0.1.0" {
  const settings: import("../src/host.ts").Host["settings"];
  export const get: typeof settings.get;
}
/** The app, written by build/bundle.mjs. */
declare module "tidegate:app" {
  const app: import("./modules.ts").App;
  export default app;
}
/** The polyfills of platform/ that the app uses in addition to index.ts, selected by build/polyfills.mjs. */
declare module "tidegate:polyfills" {}
/** By Unicode property in the app's regular expressions: the character class of its code points, and that of all others. */
declare module "tidegate:unicode" {
  const table: Record<string, [string, string]>;
  export default table;
}
declare module "buffer/" {
  export const Buffer: unknown;
}
declare module "object-inspect" {
  export default function inspect(value: unknown, options?: object): string;
}
