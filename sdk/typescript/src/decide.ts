// One decision: converts the interface's request to a standard `Request`, and the handler's response to the interface's answer.
import { reject } from "./answer.ts";
import { setCookieLines, setCurrent } from "./current.ts";
import { allowedStream, handle, type AllowedStream } from "./handle.ts";
import { host, type WitHeader } from "./host.ts";
import type { Handler } from "./handler.ts";
import { responseOf } from "./next/navigation.ts";
import { asNextRequest } from "./next/server.ts";

/** The interface's request. */
export interface WitRequest {
  method: string;
  scheme: string;
  authority: string;
  pathWithQuery: string;
  headers: WitHeader[];
  clientAddress: string;
}

/** The interface's grant. */
export interface WitGrant {
  subject?: string;
  channels?: string[];
  expiresAt?: bigint;
  headers: WitHeader[];
}

/** The interface's rejection. */
export interface WitRejection {
  status: number;
  headers: WitHeader[];
  body: Uint8Array;
}

/** A header of an answer; the value has characters up to U+00FF. */
export type Field = [name: string, value: string];

/** A decision in terms of JavaScript. */
export type Answer =
  | { subject?: string; channels?: string[]; expiresAt?: number; headers: Field[] }
  | { status: number; headers: Field[]; body: string | Uint8Array };

/** Conversions that an engine replaces by faster ones. */
export const conversions = {
  fields: (response: Response): Field[] => [...response.headers],
  body: (response: Response): string | Uint8Array | Promise<string | Uint8Array> =>
    response.body === null ? "" : response.arrayBuffer().then((it) => new Uint8Array(it)),
  /** The body of a response as a stream, if it is one already. */
  stream: (response: Response): ReadableStream | null | undefined => response.body,
};

/** Evaluates the policy. A rejection is thrown, as the bindings expect. */
export async function decide(ready: () => Promise<Handler>, request: WitRequest, channels: string[]): Promise<WitGrant> {
  const found = await answer(ready, () => toRequest(request), channels);
  const headers = found.headers.map(([name, value]) => ({ name, value: bytes(value) }));
  if ("status" in found) throw { payload: { ...found, headers, body: typeof found.body === "string" ? new TextEncoder().encode(found.body) : found.body } };
  return { ...found, headers, expiresAt: found.expiresAt === undefined ? undefined : BigInt(found.expiresAt) };
}

/**
 * Evaluates the policy. An error becomes a rejection without details, and the log has the error.
 *
 * `parsed` are the channels of the request's URL, if the caller has parsed it. Only promises are awaited, and in one function: an `await`, and
 * an asynchronous function, cost as much as a URL.
 */
export async function answer(
  ready: () => Handler | Promise<Handler>,
  toRequest: () => Request,
  channels: string[],
  parsed?: readonly string[],
): Promise<Answer> {
  try {
    let handler = ready();
    if (isPromise(handler)) handler = await handler;
    const request = toRequest();
    setCurrent(request, parsed);
    let response = handler(request);
    if (isPromise(response)) response = await response;
    const found = toAnswer(response, channels);
    return isPromise(found) ? await found : found;
  } catch (error) {
    return toRejection(errorResponse(error));
  }
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

/** Runs the code of a decision except the app's, so that its functions are compiled and its objects are allocated. */
export async function warm(): Promise<void> {
  const channels = ["warm"];
  const header = (name: string, value: string) => ({ name, value: bytes(value) });
  const request = {
    method: "GET",
    scheme: "https",
    authority: "warm.invalid",
    pathWithQuery: "/api/realtime?channel=warm",
    headers: [header("host", "warm.invalid"), header("cookie", "a=b; c=d"), header("accept", "text/event-stream")],
    clientAddress: "",
  };
  const route = handle({
    middleware({ request, channels }) {
      const rejected = request.headers.get("cookie") === null || JSON.parse('{"id":"a"}').id !== "a" || channels.length !== 1;
      return Response.json({ rejected }, { status: 403, headers: { "x-warm": "1" } });
    },
  });
  for (const it of [route, handle({ middleware: () => undefined })]) await answer(() => it, () => toRequest(request), channels);
}

function toAnswer(response: unknown, channels: string[]): Answer | Promise<Answer> {
  if (!(response instanceof Response)) {
    const kind = response === null ? "null" : typeof response;
    throw new TypeError(`the route returned ${kind}: a handler returns a Response; a middleware returns a Response, or nothing to allow`);
  }
  const stream = allowedStream(response, conversions.stream(response));
  return stream ? toGrant(stream, channels, response) : toRejection(response);
}

function toRequest({ method, scheme, authority, pathWithQuery, headers: fields }: WitRequest): Request {
  const headers = new Headers();
  for (const { name, value } of fields) headers.append(name, latin1(value));
  // Next.js passes a `NextRequest` to routes, and libraries expect its cookies.
  return asNextRequest(new Request(`${scheme}://${authority}${pathWithQuery}`, { method, headers }));
}

function toGrant({ channels, grant }: AllowedStream, requested: string[], response: Response): Answer {
  const granted = grant?.channels ?? channels;
  const all = granted.length === requested.length && granted.every((name, at) => name === requested[at]);
  return {
    subject: grant?.subject,
    channels: all ? undefined : [...granted],
    expiresAt: grant?.expiresAt === undefined ? undefined : Math.trunc(Number(grant.expiresAt)),
    headers: withCookies([...(grant?.headers ? [...new Headers(grant.headers)] : []), ...toFields(response).filter(isOfStream)]),
  };
}

/** The headers that a stream's response may have. Code that wraps `handle` adds them to its response. */
function isOfStream([name]: Field): boolean {
  return name === "set-cookie" || name.startsWith("x-");
}

/** Adds the cookies of `cookies().set()`. */
function withCookies(fields: Field[]): Field[] {
  for (const line of setCookieLines()) fields.push(["set-cookie", line]);
  return fields;
}

function toRejection(response: Response): Answer | Promise<Answer> {
  const { status } = response;
  if (status < 200 || status > 599) throw new RangeError(`a response of status ${status} cannot be sent`);
  const body = conversions.body(response);
  const headers = withCookies(toFields(response));
  return isPromise(body) ? body.then((it) => ({ status, headers, body: it })) : { status, headers, body };
}

/** The client's response to an uncaught error, without details. The log has the error. */
function errorResponse(error: unknown): Response {
  const meant = responseOf(error);
  if (meant) return meant;
  const { name, message, kind } = error instanceof Error ? (error as Error & { kind?: string }) : { name: "thrown", message: String(error) };
  // Compared by name, because the app may have its own copy of this package.
  if (name === "LookupError") return reject(503, "Try again", `look-up ${kind}`);
  if (name === "TokenError" && kind === "unavailable") return reject(503, "Try again", "token unavailable");
  if (name === "TokenError") return reject(401, "Unauthorized", `token ${kind}`);
  console.error(error);
  return reject(500, "Internal Server Error", `${name}: ${message}`.slice(0, 200));
}

function toFields(response: Response): Field[] {
  // The gateway sets the length of the body.
  return conversions.fields(response).filter(([name]) => name !== "content-length");
}

function latin1(value: Uint8Array): string {
  let text = "";
  for (const byte of value) text += String.fromCharCode(byte);
  return text;
}

/** A header's value as bytes. `Headers` only allows characters up to U+00FF. */
function bytes(text: string): Uint8Array {
  const out = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) out[at] = text.charCodeAt(at);
  return out;
}
