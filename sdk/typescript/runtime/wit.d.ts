// The interface as componentize-js binds it.
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
/** The app, as build/bundle.mjs writes it. */
declare module "tidegate:app" {
  const app: import("./modules.ts").App;
  export default app;
}
/** What the app needs of platform/ beyond index.ts, as build/needs.mjs finds out. */
declare module "tidegate:needs" {}
/** The code points of the properties that the app's regular expressions name, as a character class has them, and all others. */
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
