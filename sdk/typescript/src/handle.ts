// `handle({ middleware })`, with the interface of the server half of @upstash/realtime. The middleware is the policy.

import { currentChannels } from "./current.ts";

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

const GRANT = Symbol.for("tidegate.policy.grant");

/** Admits the client, with options. */
export interface Grant extends GrantOptions {
  [GRANT]: true;
}

/** The result of a middleware that admits the client: `return allow({ subject: user.id })`. */
export function allow(options: GrantOptions = {}): Grant {
  return { ...options, [GRANT]: true };
}

/** Whether a middleware's result is a grant. */
export function isGrant(value: unknown): value is Grant {
  return typeof value === "object" && value !== null && GRANT in value;
}

/** The property of a response for a stream with the channels and the grant, and of its body. */
const ALLOWED = Symbol.for("tidegate.policy.allowed");

/** A stream that `handle` allowed. */
export interface AllowedStream {
  channels: string[];
  grant: Grant | undefined;
}

/** The stream that a response of `handle` represents, if any. A response that was made from it, such as by Auth.js, has its body. */
export function allowedStream(response: Response, body: object | null | undefined): AllowedStream | undefined {
  return marker(response) ?? marker(body);
}

function marker(of: object | null | undefined): AllowedStream | undefined {
  return (of as { [ALLOWED]?: AllowedStream } | null | undefined)?.[ALLOWED];
}

/**
 * The handler of a route: `export const GET = handle({ realtime, middleware })`. In a policy, the gateway serves the allowed stream.
 * Anywhere else, the response to an allowed request is an empty stream.
 */
export function handle(config: { realtime?: unknown; middleware?: Middleware }): (request: Request) => Promise<Response> {
  if (!config.middleware) console.warn("handle() has no middleware: it admits every client, unless the route checks the request before");
  return async (request) => {
    const channels = currentChannels(request) ?? channelsOf(request);
    const result = await config.middleware?.({ request, channels });
    if (result && !isGrant(result)) return result;
    return streamOf({ channels, grant: result || undefined });
  };
}

function channelsOf(request: Request): string[] {
  const requested = new URL(request.url).searchParams.getAll("channel");
  return [...new Set(requested.length > 0 ? requested : ["default"])];
}

let streamHeaders: Headers | undefined;

/** The response for a stream. Its body is created when code reads it: most policies return the response as it is. */
function streamOf(value: AllowedStream): Response {
  const response = new Response(null, { headers: (streamHeaders ??= new Headers({ "content-type": "text/event-stream" })) });
  let body: ReadableStream | undefined;
  const get = () => (body ??= Object.defineProperty(new ReadableStream({ start: (it) => it.close() }), ALLOWED, { value }));
  return Object.defineProperties(response, { [ALLOWED]: { value }, body: { get, configurable: true } });
}
