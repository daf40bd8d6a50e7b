// `handle({ middleware })`, as the server half of @upstash/realtime has it: what its middleware decides is the policy.

/** What a middleware is given. */
export interface Asked {
  /** The client's request. */
  request: Request;
  /** The channels that it asks for, without repeats. */
  channels: string[];
}

/** Nothing (or anything falsy) allows, a grant allows and says more, a response refuses and is sent as it stands. */
export type Decision = void | undefined | null | false | Grant | Response;

/** Decides whether a client may read the channels that it asks for. */
export type Middleware = (asked: Asked) => Decision | Promise<Decision>;

/** What a grant may say. */
export interface GrantOptions {
  /** Who the client is: for logs, limits and revocation. Never shown to other clients. */
  subject?: string;
  /** The channels that it gets, some of those that it asked for. Without it, all of them. */
  channels?: string[];
  /** When it ends (ms since 1970): the stream is rotated before, and the policy asked again. */
  expiresAt?: Date | number;
  /** Headers for the stream's response: `set-cookie` and `x-…`. */
  headers?: HeadersInit;
}

const GRANT = Symbol.for("tidegate.policy.grant");

/** Lets the client in, and says more than `return` alone. */
export interface Grant extends GrantOptions {
  [GRANT]: true;
}

/** To be returned by a middleware that lets the client in: `return allow({ subject: user.id })`. */
export function allow(options: GrantOptions = {}): Grant {
  return { ...options, [GRANT]: true };
}

/** Whether a middleware's answer is a grant. */
export function isGrant(value: unknown): value is Grant {
  return typeof value === "object" && value !== null && GRANT in value;
}

/** Where `handle` puts what it allowed: the response that stands for the stream, and the channels of it. */
const ALLOWED = Symbol.for("tidegate.policy.allowed");

/** What `handle` allowed. */
export interface Allowed {
  channels: string[];
  grant: Grant | undefined;
}

/** What a response stands for, if it is the one of `handle` for a stream. */
export function allowed(response: Response): Allowed | undefined {
  return (response as { [ALLOWED]?: Allowed })[ALLOWED];
}

/**
 * The handler of a route: `export const GET = handle({ realtime, middleware })`. In a policy, the gateway streams what it allows;
 * anywhere else the response of an allowed request is an empty stream.
 */
export function handle(config: { realtime?: unknown; middleware?: Middleware }): (request: Request) => Promise<Response> {
  if (!config.middleware) console.warn("handle() without a middleware lets everybody in");
  return async (request) => {
    const asked = new URL(request.url).searchParams.getAll("channel");
    const channels = [...new Set(asked.length > 0 ? asked : ["default"])];
    const decision = await config.middleware?.({ request, channels });
    if (decision && !isGrant(decision)) return decision;
    const stream = new Response(null, { headers: { "content-type": "text/event-stream" } });
    return Object.defineProperty(stream, ALLOWED, { value: { channels, grant: decision || undefined } });
  };
}
