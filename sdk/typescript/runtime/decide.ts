// One decision: the interface's request to the standard's, and the handler's answer back.
import { allowed, handle, type Allowed } from "../src/handle.ts";
import { host, type WitHeader } from "../src/host.ts";
import type { Handler } from "./handler.ts";

export interface WitRequest {
  method: string;
  scheme: string;
  authority: string;
  pathWithQuery: string;
  headers: WitHeader[];
  clientAddress: string;
}

interface WitGrant {
  subject?: string;
  channels?: string[];
  expiresAt?: bigint;
  headers: WitHeader[];
}

interface WitRejection {
  status: number;
  headers: WitHeader[];
  body: Uint8Array;
}

/** Decides. A rejection is thrown, as the bindings want it. */
export async function decide(ready: () => Promise<Handler>, asked: WitRequest, channels: string[]): Promise<WitGrant> {
  const answer = await answerOf(ready, asked, channels).catch(failed);
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
  await answerOf(async () => handle({}), request, channels);
}

async function answerOf(ready: () => Promise<Handler>, asked: WitRequest, channels: string[]): Promise<WitGrant | WitRejection> {
  const handler = await ready();
  const response = await handler(requestOf(asked));
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

/** The client learns nothing of it but that it failed. */
function failed(error: unknown): WitRejection {
  console.error(error);
  const { name, message } = error instanceof Error ? error : { name: "threw", message: String(error) };
  host().answer.reason(`${name}: ${message}`.slice(0, 200));
  return {
    status: 500,
    headers: [{ name: "content-type", value: bytes("text/plain") }],
    body: bytes("Internal Server Error"),
  };
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
