// One decision: the interface's request to the standard's, and the handler's answer back.
import { refuse } from "./answer.ts";
import { setCurrent } from "./current.ts";
import { allowed, handle, type Allowed } from "./handle.ts";
import { host, type WitHeader } from "./host.ts";
import type { Handler } from "./handler.ts";

/** As the interface has it. */
export interface WitRequest {
  method: string;
  scheme: string;
  authority: string;
  pathWithQuery: string;
  headers: WitHeader[];
  clientAddress: string;
}

/** As the interface has it. */
export interface WitGrant {
  subject?: string;
  channels?: string[];
  expiresAt?: bigint;
  headers: WitHeader[];
}

/** As the interface has it. */
export interface WitRejection {
  status: number;
  headers: WitHeader[];
  body: Uint8Array;
}

/** Decides. A rejection is thrown, as the bindings want it. */
export async function decide(ready: () => Promise<Handler>, asked: WitRequest, channels: string[]): Promise<WitGrant> {
  const answer = await answerOf(ready, asked, channels).catch((error) => rejectionOf(failed(error)));
  if ("status" in answer) throw { payload: answer };
  return answer;
}

/** Runs all that a decision runs but the app, so that its functions are compiled and its objects are where the next one finds them. */
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
      const refused = request.headers.get("cookie") === null || JSON.parse('{"id":"a"}').id !== "a" || channels.length !== 1;
      return Response.json({ refused }, { status: 403, headers: { "x-warm": "1" } });
    },
  });
  await answerOf(async () => route, request, channels);
  await answerOf(async () => handle({ middleware: () => undefined }), request, channels);
}

async function answerOf(ready: () => Promise<Handler>, asked: WitRequest, channels: string[]): Promise<WitGrant | WitRejection> {
  const handler = await ready();
  const request = requestOf(asked);
  setCurrent(request);
  const response = await handler(request);
  if (!(response instanceof Response)) {
    const what = response === null ? "null" : typeof response;
    throw new TypeError(`the route answered with ${what}: a handler answers with a Response; a middleware with a Response, or nothing to allow`);
  }
  const stream = allowed(response);
  return stream ? grantOf(stream, channels) : rejectionOf(response);
}

function requestOf(asked: WitRequest): Request {
  const headers = new Headers();
  for (const { name, value } of asked.headers) headers.append(name, latin1(value));
  return new Request(`${asked.scheme}://${asked.authority}${asked.pathWithQuery}`, { method: asked.method, headers });
}

function grantOf({ channels, grant }: Allowed, asked: string[]): WitGrant {
  const kept = grant?.channels ?? channels;
  const all = kept.length === asked.length && kept.every((name, at) => name === asked[at]);
  return {
    subject: grant?.subject,
    channels: all ? undefined : [...kept],
    expiresAt: grant?.expiresAt === undefined ? undefined : BigInt(Math.trunc(Number(grant.expiresAt))),
    headers: grant?.headers ? headersOf(new Headers(grant.headers)) : [],
  };
}

async function rejectionOf(response: Response): Promise<WitRejection> {
  if (response.status < 200 || response.status > 599) throw new RangeError(`a response of status ${response.status} cannot be sent`);
  const body = response.body === null ? new Uint8Array() : new Uint8Array(await response.arrayBuffer());
  return { status: response.status, headers: headersOf(response.headers), body };
}

/** What the client gets for an error that nobody caught: no more than it needs to know. The log has the rest. */
function failed(error: unknown): Response {
  const { name, message, kind } = error instanceof Error ? (error as Error & { kind?: string }) : { name: "thrown", message: String(error) };
  // By name, for the app's copy of this package may be another one.
  if (name === "LookupError") return refuse(503, "Try again", `look-up ${kind}`);
  if (name === "TokenError" && kind === "unavailable") return refuse(503, "Try again", "token unavailable");
  if (name === "TokenError") return refuse(401, "Unauthorized", `token ${kind}`);
  console.error(error);
  return refuse(500, "Internal Server Error", `${name}: ${message}`.slice(0, 200));
}

function headersOf(headers: Headers): WitHeader[] {
  // Of the body's length the gateway has the last word.
  return [...headers].filter(([name]) => name !== "content-length").map(([name, value]) => ({ name, value: bytes(value) }));
}

function latin1(value: Uint8Array): string {
  let text = "";
  for (const byte of value) text += String.fromCharCode(byte);
  return text;
}

/** A header's value as bytes: `Headers` lets nothing in but such characters. */
function bytes(text: string): Uint8Array {
  const out = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) out[at] = text.charCodeAt(at);
  return out;
}
