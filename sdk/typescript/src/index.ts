// The parts of a policy. See README.md.
export { cacheFor, reason, refuse, replaySince } from "./answer.ts";
export { cookie } from "./cookies.ts";
export { allow, handle } from "./handle.ts";
export type { Asked, Decision, Grant, GrantOptions, Middleware } from "./handle.ts";
export { context, lookup, LookupError, settings, TokenError, tokens } from "./imports.ts";
