// Types of `@tidegate/policy` for an editor: `tidegate policy types` prints this file.
// Generated from `src` by `BLESS=1 npm test -- types.test.js`.

declare module "@tidegate/policy" {
  type Level = "debug" | "info" | "warn" | "error";

  /** The input of a middleware. */
  export interface MiddlewareInput {
    /** The client's request. */
    request: Request;
    /** The requested channels, without repeats. */
    channels: string[];
  }

  /** Nothing or any falsy value admits the client, a grant admits it with options, a response rejects it and is sent unchanged. */
  export type MiddlewareResult = void | undefined | null | false | Grant | Response;

  /** Decides whether a client may read the requested channels. */
  export type Middleware = (input: MiddlewareInput) => MiddlewareResult | Promise<MiddlewareResult>;

  /** Options of a grant. */
  export interface GrantOptions {
    /** The user, for logs, limits and revocation. Never shown to other clients. */
    subject?: string;
    /** Those of the requested channels that are granted. By default all of them. */
    channels?: string[];
    /** The end of the grant (ms since 1970). The stream is rotated before that, and the policy decides again. */
    expiresAt?: Date | number;
    /** Headers of the stream's response: `set-cookie` and `x-…`. */
    headers?: HeadersInit;
  }

  const GRANT: unique symbol;

  /** Admits the client, with options. */
  export interface Grant extends GrantOptions {
    [GRANT]: true;
  }

  /** The result of a middleware that admits the client: `return allow({ subject: user.id })`. */
  export function allow(options?: GrantOptions): Grant;

  /**
   * The handler of a route: `export const GET = handle({ realtime, middleware })`. In a policy, the gateway serves the allowed stream.
   * Anywhere else, the response to an allowed request is an empty stream.
   */
  export function handle(config: {
    realtime?: unknown;
    middleware?: Middleware;
  }): (request: Request) => Promise<Response>;

  /** The reason for the decision, for the decision log. It is never sent to the client. */
  export function reason(text: string): void;

  /** Events older than this time are not replayed to the client. */
  export function replaySince(time: Date | number): void;

  /**
   * Lets the gateway reuse the answer for the given time, for requests with the same URL, client address and values of the headers in
   * `vary`. Name the headers that carry credentials there. With `anyAddress` the address is ignored.
   */
  export function cacheFor(seconds: number, { vary, anyAddress }?: {
    vary?: string[];
    anyAddress?: boolean;
  }): void;

  /** A plain-text response that rejects the client; `reason` is for the decision log. */
  export function reject(status: number, text: string, reason?: string): Response;

  /** The value of the first cookie with this name, undecoded. Parts that are not `name=value` are skipped. */
  export function cookie(request: Request, name: string): string | undefined;

  /** A failed look-up. */
  export class LookupError extends Error {
    readonly name = "LookupError";
    /** `denied`: the operator did not allow this key. `unavailable`: the store did not answer in time, or answered with an error. */
    readonly kind: "denied" | "unavailable";
    constructor(kind: "denied" | "unavailable", detail?: string);
  }

  /** A token that is invalid or could not be verified. */
  export class TokenError extends Error {
    readonly name = "TokenError";
    readonly kind: "malformed" | "untrusted" | "expired" | "claims" | "unavailable";
    constructor(kind: TokenError["kind"], detail?: string);
  }

  /** Read-only look-ups in the gateway's store, for keys with a prefix that the operator allowed. */
  export const lookup: {
    /** The string at `key` as text. */
    get(key: string): string | undefined;
    /** The string at `key` decoded from JSON, of a type that is not checked; `undefined` if there is none, or if it is not JSON. */
    json<Value = unknown>(key: string): Value | undefined;
    /** The string at `key` as bytes. */
    bytes(key: string): Uint8Array | undefined;
    /** A field of the hash at `key` as text. */
    hashGet(key: string, field: string): string | undefined;
    /** Whether the set at `key` contains `member`. */
    setContains(key: string, member: string): boolean;
  };

  /** JSON Web Tokens, verified by the gateway against the operator's profiles. */
  export const tokens: {
    /** Verifies a token with `profile`, or with the profile of its issuer, and returns its claims. Throws a `TokenError`. */
    verify<Claims = Record<string, unknown>>(token: string, { profile }?: {
      profile?: string;
    }): Claims;
  };

  /** The operator's `[policy.settings]`; `process.env` has the same values. */
  export const settings: {
    get(name: string): string | undefined;
  };

  /** Context of the current decision. */
  export const context: {
    /** The gateway's clock, in ms since 1970. */
    now: () => number;
    /** The id of this request, as in all log lines about it. */
    requestId: () => string;
    /** The requested action: `stream` or `history`. */
    action: () => string;
    /** Writes to the gateway's log, as `console` does. */
    log: (level: Level, message: string) => void;
  };

  export {};
}

declare module "@tidegate/policy/testing" {
  import type { Middleware } from "@tidegate/policy";

  /** The gateway of a test. */
  export interface TestGateway {
    /** The values in the store by key: a string, a set (a list) or a hash (an object). With `"unavailable"` the store does not answer. */
    store?: Record<string, string | string[] | Record<string, string>> | "unavailable";
    /** Prefixes of keys that may be looked up. By default all keys. */
    prefixes?: string[];
    /** The operator's settings. They do not change `process.env` of the test's process. */
    settings?: Record<string, string>;
    /** Claims of valid tokens, by token. Any other token is untrusted. */
    tokens?: Record<string, object>;
    /** The clock, in ms since 1970. By default the real time. */
    now?: number;
  }

  /** The request and the gateway of a test. */
  export interface DecideOptions extends TestGateway {
    /** The requested channels. By default `default`. */
    channels?: string[];
    headers?: Record<string, string>;
    /** Path and query. By default those of a request for the channels. */
    path?: string;
    method?: string;
  }

  /** A policy's decision, with the options and log lines that it passed to the gateway. */
  export interface Decision {
    allowed: boolean;
    /** Only for a rejection. */
    status?: number;
    /** Only for a rejection. */
    body?: string;
    /** Only for a grant. */
    subject?: string;
    /** Only for a grant; `undefined` for all requested channels. */
    channels?: string[];
    /** Only for a grant, in ms since 1970. */
    expiresAt?: number;
    headers: Record<string, string>;
    reason?: string;
    /** For how many seconds the gateway may cache the answer, and by which headers it varies. */
    cached?: {
      seconds: number;
      vary: string[];
      anyAddress: boolean;
    };
    /** Lines that `context.log` wrote, such as `warn: …`. */
    log: string[];
  }

  /** Evaluates a policy as the gateway does: the exports of a route file (`import * as route from "./route.ts"`), or a middleware. */
  export function decide(route: Middleware | object, options?: DecideOptions): Promise<Decision>;

  export {};
}
