// For a policy's own tests, on Node: the decision of a route file or a middleware, with a store and tokens that the test makes up.
import { decide as decideBy, type WitGrant, type WitRejection } from "./decide.ts";
import type { Middleware } from "./handle.ts";
import { handlerOf } from "./handler.ts";
import { setHost, type Host } from "./host.ts";

/** What a test says about the world. */
export interface World {
  /** What the store holds: a string, a set (a list) or a hash (an object) a key. `"away"`: it does not answer. */
  store?: Record<string, string | string[] | Record<string, string>> | "away";
  /** Prefixes of keys that may be looked up. Without it, all. */
  prefixes?: string[];
  /** The operator's settings; `process.env` of the test's own process stays what it is. */
  settings?: Record<string, string>;
  /** Claims of tokens that hold, by token. */
  tokens?: Record<string, object>;
  /** The clock, ms since 1970. */
  now?: number;
}

/** What a test asks. */
export interface Question extends World {
  /** The channels; `default` without it. */
  channels?: string[];
  headers?: Record<string, string>;
  /** Path and query in place of the usual ones. */
  path?: string;
  method?: string;
}

/** What was decided. */
export interface Decided {
  allowed: boolean;
  /** Of a refusal. */
  status?: number;
  body?: string;
  /** Of a grant. */
  subject?: string;
  channels?: string[];
  expiresAt?: number;
  headers: Record<string, string>;
  reason?: string;
  /** Seconds for which the answer may be kept, and the headers that it depends on. */
  cached?: { seconds: number; vary: string[]; anyAddress: boolean };
  /** Lines for the log that `context.log` wrote. */
  log: string[];
}

let last: Promise<unknown> = Promise.resolve();

/** Decides as the gateway would: by the exports of a route file (`import * as route from "./route.ts"`), or by a middleware. */
export function decide(route: Middleware | object, question: Question = {}): Promise<Decided> {
  // One after the other, for there is one host.
  const mine = last.then(() => decideNow(route, question));
  last = mine.catch(() => {});
  return mine;
}

async function decideNow(route: Middleware | object, question: Question): Promise<Decided> {
  const { channels = ["default"], headers = {}, method = "GET" } = question;
  const query = channels.map((name) => `channel=${encodeURIComponent(name)}`).join("&");
  const encoder = new TextEncoder();
  const request = {
    method,
    scheme: "https",
    authority: "gate.example",
    pathWithQuery: question.path ?? `/api/realtime?${query}`,
    headers: Object.entries(headers).map(([name, value]) => ({ name: name.toLowerCase(), value: encoder.encode(value) })),
    clientAddress: "192.0.2.1",
  };
  const decided: Decided = { allowed: false, headers: {}, log: [] };
  const before = setHost(fakeHost(question, decided));
  try {
    const handler = handlerOf(typeof route === "function" ? { middleware: route } : route);
    granted(decided, await decideBy(async () => handler, request, channels));
  } catch (error) {
    if (!isRejection(error)) throw error;
    rejected(decided, error.payload);
  } finally {
    setHost(before);
  }
  return decided;
}

function granted(decided: Decided, { subject, channels, expiresAt, headers }: WitGrant): void {
  Object.assign(decided, { allowed: true, subject, channels, headers: textOf(headers) });
  if (expiresAt !== undefined) decided.expiresAt = Number(expiresAt);
}

function rejected(decided: Decided, { status, headers, body }: WitRejection): void {
  Object.assign(decided, { status, headers: textOf(headers), body: new TextDecoder().decode(body) });
}

function isRejection(error: unknown): error is { payload: WitRejection } {
  return typeof error === "object" && error !== null && !(error instanceof Error) && "payload" in error;
}

function textOf(headers: WitGrant["headers"]): Record<string, string> {
  return Object.fromEntries(headers.map(({ name, value }) => [name, new TextDecoder("latin1").decode(value)]));
}

function fakeHost(world: World, decided: Decided): Host {
  const find = (key: string) => {
    if (world.prefixes && !world.prefixes.some((prefix) => key.startsWith(prefix))) throw { payload: { tag: "denied" } };
    if (world.store === "away") throw { payload: { tag: "unavailable", val: "away" } };
    return world.store?.[key];
  };
  const bytes = (text: string | undefined) => (text === undefined ? undefined : new TextEncoder().encode(text));
  const wrong = (): never => {
    throw { payload: { tag: "unavailable", val: "the key holds something else" } };
  };
  const claims = (token: string) => {
    const found = world.tokens?.[token];
    if (!found) throw { payload: { tag: "untrusted" } };
    return JSON.stringify(found);
  };
  return {
    context: {
      now: () => BigInt(world.now ?? Date.now()),
      requestId: () => "test",
      action: () => "stream",
      log: (level, message) => void decided.log.push(`${level}: ${message}`),
    },
    answer: {
      reason: (text) => void (decided.reason = text),
      replaySince: () => {},
      cacheFor: (seconds, vary) => void (decided.cached = { seconds, vary, anyAddress: false }),
      cacheAnyAddress: () => void (decided.cached && (decided.cached.anyAddress = true)),
    },
    lookup: {
      get(key) {
        const found = find(key);
        return found === undefined || typeof found === "string" ? bytes(found) : wrong();
      },
      hashGet(key, field) {
        const found = find(key);
        return found === undefined || (typeof found === "object" && !Array.isArray(found)) ? bytes(found?.[field]) : wrong();
      },
      setContains(key, member) {
        const found = find(key);
        return found === undefined || Array.isArray(found) ? (found?.includes(member) ?? false) : wrong();
      },
    },
    tokens: { verify: claims, verifyWith: (_, token) => claims(token) },
    settings: { get: (name) => world.settings?.[name] },
  };
}
