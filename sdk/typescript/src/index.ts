// The public interface of the package. See README.md.
export { cacheFor, reason, reject, replaySince } from "./answer.ts";
export { cookie } from "./cookies.ts";
export { allow, handle } from "./handle.ts";
export type { Grant, GrantOptions, Middleware, MiddlewareInput, MiddlewareResult } from "./handle.ts";
export { context, lookup, LookupError, settings, TokenError, tokens } from "./imports.ts";
