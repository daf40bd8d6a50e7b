// `fetch`: redirects, abortion and the schemes without a network. The natives send one request each.
import { type AbortSignal, onAbort } from "./abort.ts";
import { blobBytes } from "./blob.ts";
import { blobOfUrl } from "./blob-url.ts";
import type { Incoming } from "./body.ts";
import { dataUrl } from "./data-url.ts";
import type { HeaderLists } from "./headers.ts";
import { Request, requestParts } from "./request.ts";
import { networkResponse, REDIRECTS, type Response } from "./response.ts";
import { hrefOf, parseUrl } from "./url.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const MAX_REDIRECTS = 20;
const NULL_BODY = [101, 204, 205, 304];

// What the connection decides.
const OF_CONNECTION = new Set(["connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]);
// What a request to another origin must not carry over.
const OF_ORIGIN = ["authorization", "proxy-authorization", "cookie", "host"];
const OF_BODY = ["content-encoding", "content-language", "content-location", "content-type", "content-length"];

export async function fetch(input: RequestInfo | globalThis.URL, init: RequestInit | undefined = undefined): Promise<Response> {
  const { method, url, headers, body, redirect, signal } = requestParts(new Request(input, init));
  if (signal?.aborted) throw signal.reason;
  const taken = body instanceof Promise ? await body : body;
  const bytes = typeof taken === "string" ? native.utf8Encode(taken) : taken;
  const scheme = url.slice(0, url.indexOf(":"));
  if (scheme === "data") return local(url, dataUrl(url));
  if (scheme === "blob") return local(url, blobContent(url));
  return overNetwork({ method, url, headers: withDefaults(headers), body: bytes }, redirect, signal);
}

interface Sent {
  method: string;
  url: string;
  headers: HeaderLists;
  body: Bytes | null;
}

async function overNetwork(first: Sent, redirect: RequestRedirect, signal: AbortSignal | undefined): Promise<Response> {
  let sent = first;
  for (let redirects = 0; ; redirects++) {
    if (!/^https?:/.test(sent.url)) throw failed("unknown scheme");
    const exchange = new Exchange(sent, signal);
    const { status, headers } = await exchange.head();
    const lists = listsOf(headers);
    const location = REDIRECTS.includes(status) ? valueOf(lists, "location") : undefined;
    if (location === undefined || redirect === "manual") {
      const hasBody = sent.method !== "HEAD" && !NULL_BODY.includes(status);
      if (!hasBody) exchange.cancel();
      return networkResponse({ status, headers: lists, url: sent.url, redirected: redirects > 0, body: hasBody ? decoded(exchange, lists) : null });
    }
    exchange.cancel();
    if (redirect === "error") throw failed("unexpected redirect");
    if (redirects === MAX_REDIRECTS) throw failed("redirect count exceeded");
    sent = redirected(sent, status, location);
  }
}

/** The request that follows a redirect. */
function redirected(sent: Sent, status: number, location: string): Sent {
  const parts = parseUrl(location.toWellFormed(), sent.url);
  if (!parts) throw failed(`invalid redirect URL ${location}`);
  const url = hrefOf(parts);
  let { method, body } = sent;
  let dropped: string[] = [];
  const becomesGet = ((status === 301 || status === 302) && method === "POST") || (status === 303 && method !== "GET" && method !== "HEAD");
  if (becomesGet) {
    [method, body] = ["GET", null];
    dropped = OF_BODY;
  }
  if (originOf(sent.url) !== originOf(url)) dropped = [...dropped, ...OF_ORIGIN];
  const [names, values] = sent.headers;
  const kept = names.map((name) => !dropped.includes(name));
  return { method, url, body, headers: [names.filter((_, at) => kept[at]), values.filter((_, at) => kept[at])] };
}

function originOf(url: string): string {
  const [href, schemeEnd, , , , , host, , , portEnd] = parseUrl(url) as UrlParts;
  return `${href.slice(0, schemeEnd)}:${href.slice(host, portEnd)}`;
}

/** One request and its response. Abortion ends it at any time. */
class Exchange implements Incoming {
  #id: number;
  #aborted: { reason: unknown } | undefined = undefined;
  /** Rejects the pending promise. */
  #reject: ((reason: unknown) => void) | undefined = undefined;
  #release: () => void = () => {};

  constructor({ method, url, headers: [names, values], body }: Sent, signal: AbortSignal | undefined) {
    const flat: string[] = [];
    names.forEach((name, at) => {
      if (!OF_CONNECTION.has(name)) flat.push(name, values[at] as string);
    });
    this.#id = native.fetchStart(method, url.split("#", 1)[0] as string, flat, body);
    if (!signal) return;
    this.#release = onAbort(signal, (reason) => {
      this.#aborted = { reason };
      native.fetchCancel(this.#id);
      this.#reject?.(reason);
    });
  }

  head(): Promise<{ status: number; headers: string[] }> {
    return this.#abortable(() => native.fetchHead(this.#id));
  }

  async read(): Promise<Bytes | null> {
    const chunk = await this.#abortable(() => native.fetchRead(this.#id));
    if (chunk === null) this.#release();
    return chunk;
  }

  cancel(): void {
    this.#release();
    native.fetchCancel(this.#id);
  }

  #abortable<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#aborted) return reject(this.#aborted.reason);
      this.#reject = reject;
      work().then(resolve, reject);
    });
  }
}

function withDefaults([names, values]: HeaderLists): HeaderLists {
  const defaults = { accept: "*/*", "accept-language": "*", "user-agent": "tidegate" };
  const lists: HeaderLists = [names.slice(), values.slice()];
  for (const [name, value] of Object.entries(defaults)) {
    if (names.includes(name)) continue;
    lists[0].push(name);
    lists[1].push(value);
  }
  return lists;
}

function listsOf(flat: readonly string[]): HeaderLists {
  const lists: HeaderLists = [[], []];
  for (let at = 0; at + 1 < flat.length; at += 2) {
    lists[0].push((flat[at] as string).toLowerCase());
    lists[1].push(flat[at + 1] as string);
  }
  return lists;
}

function valueOf([names, values]: HeaderLists, name: string): string | undefined {
  return values[names.indexOf(name)];
}

/** The content of a body that a server compressed, although no request asks for it. */
function decoded(exchange: Exchange, headers: HeaderLists): Incoming {
  const coding = valueOf(headers, "content-encoding")?.trim().toLowerCase();
  const format = coding === "gzip" || coding === "x-gzip" ? "gzip" : coding === "deflate" ? "deflate" : undefined;
  if (!format) return exchange;
  const id = native.compressionOpen(format, false);
  let ended = false;
  return {
    async read() {
      while (!ended) {
        const chunk = await exchange.read();
        ended = chunk === null;
        const out = native.compressionPush(id, chunk ?? new Uint8Array(0), ended);
        if (out.byteLength > 0) return out;
      }
      return null;
    },
    cancel: () => exchange.cancel(),
  };
}

function blobContent(url: string): { type: string; bytes: Bytes } | undefined {
  const blob = blobOfUrl(url.split("#", 1)[0] as string);
  return blob && { type: blob.type, bytes: blobBytes(blob as never) };
}

function local(url: string, content: { type: string; bytes: Bytes } | undefined): Response {
  if (!content) throw failed(`invalid URL ${url.slice(0, 100)}`);
  const { type, bytes } = content;
  return networkResponse({ status: 200, statusText: "OK", headers: [["content-type"], [type]], url, redirected: false, body: bytes });
}

function failed(reason: string): TypeError {
  return new TypeError("fetch failed", { cause: new Error(reason) });
}
