// The parts of a policy. See README.md.
export { allow, handle } from "./handle.ts";
export type { Asked, Decision, Grant, GrantOptions, Middleware } from "./handle.ts";
export { cacheFor, context, lookup, LookupError, reason, replaySince, settings, TokenError, tokens } from "./imports.ts";
