// For tests of policies on Node: evaluates a route file or a middleware against a gateway that the test describes.
import { decide as decideBy, type WitGrant, type WitRejection } from "./decide.ts";
import type { Middleware } from "./handle.ts";
import { handlerOf } from "./handler.ts";
import { setHost, type Host } from "./host.ts";

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
  cached?: { seconds: number; vary: string[]; anyAddress: boolean };
  /** Lines that `context.log` wrote, such as `warn: …`. */
  log: string[];
}

let last: Promise<unknown> = Promise.resolve();

/** Evaluates a policy as the gateway does: the exports of a route file (`import * as route from "./route.ts"`), or a middleware. */
export function decide(route: Middleware | object, options: DecideOptions = {}): Promise<Decision> {
  // One decision at a time, because the host is global.
  const decision = last.then(() => decideNow(route, options));
  last = decision.catch(() => {});
  return decision;
}

async function decideNow(route: Middleware | object, options: DecideOptions): Promise<Decision> {
  const { channels = ["default"], headers = {}, method = "GET" } = options;
  const query = channels.map((name) => `channel=${encodeURIComponent(name)}`).join("&");
  const encoder = new TextEncoder();
  const request = {
    method,
    scheme: "https",
    authority: "gate.example",
    pathWithQuery: options.path ?? `/api/realtime?${query}`,
    headers: Object.entries(headers).map(([name, value]) => ({ name: name.toLowerCase(), value: encoder.encode(value) })),
    clientAddress: "192.0.2.1",
  };
  const decision: Decision = { allowed: false, headers: {}, log: [] };
  const before = setHost(testHost(options, decision));
  try {
    const handler = handlerOf(typeof route === "function" ? { middleware: route } : route);
    recordGrant(decision, await decideBy(async () => handler, request, channels));
  } catch (error) {
    if (!isRejection(error)) throw error;
    recordRejection(decision, error.payload);
  } finally {
    setHost(before);
  }
  return decision;
}

function recordGrant(decision: Decision, { subject, channels, expiresAt, headers }: WitGrant): void {
  Object.assign(decision, { allowed: true, subject, channels, headers: toText(headers) });
  if (expiresAt !== undefined) decision.expiresAt = Number(expiresAt);
}

function recordRejection(decision: Decision, { status, headers, body }: WitRejection): void {
  Object.assign(decision, { status, headers: toText(headers), body: new TextDecoder().decode(body) });
}

function isRejection(error: unknown): error is { payload: WitRejection } {
  return typeof error === "object" && error !== null && !(error instanceof Error) && "payload" in error;
}

function toText(headers: WitGrant["headers"]): Record<string, string> {
  return Object.fromEntries(headers.map(({ name, value }) => [name, new TextDecoder("latin1").decode(value)]));
}

function testHost(gateway: TestGateway, decision: Decision): Host {
  const find = (key: string) => {
    if (gateway.prefixes && !gateway.prefixes.some((prefix) => key.startsWith(prefix))) throw { payload: { tag: "denied" } };
    if (gateway.store === "unavailable") throw { payload: { tag: "unavailable", val: "the store does not answer" } };
    return gateway.store?.[key];
  };
  const bytes = (text: string | undefined) => (text === undefined ? undefined : new TextEncoder().encode(text));
  const wrongType = (): never => {
    throw { payload: { tag: "unavailable", val: "the key holds another type of value" } };
  };
  const claims = (token: string) => {
    const found = gateway.tokens?.[token];
    if (!found) throw { payload: { tag: "untrusted" } };
    return JSON.stringify(found);
  };
  return {
    context: {
      now: () => BigInt(gateway.now ?? Date.now()),
      requestId: () => "test",
      action: () => "stream",
      log: (level, message) => void decision.log.push(`${level}: ${message}`),
    },
    answer: {
      reason: (text) => void (decision.reason = text),
      replaySince: () => {},
      cacheFor: (seconds, vary) => void (decision.cached = { seconds, vary, anyAddress: false }),
      cacheAnyAddress: () => void (decision.cached && (decision.cached.anyAddress = true)),
    },
    lookup: {
      get(key) {
        const found = find(key);
        return found === undefined || typeof found === "string" ? bytes(found) : wrongType();
      },
      hashGet(key, field) {
        const found = find(key);
        return found === undefined || (typeof found === "object" && !Array.isArray(found)) ? bytes(found?.[field]) : wrongType();
      },
      setContains(key, member) {
        const found = find(key);
        return found === undefined || Array.isArray(found) ? (found?.includes(member) ?? false) : wrongType();
      },
    },
    tokens: { verify: claims, verifyWith: (_, token) => claims(token) },
    settings: { get: (name) => gateway.settings?.[name] },
  };
}
