// `Request`.
import { AbortSignal, newSignal } from "./abort.ts";
import { Body, cloneBody, defineBodyMethods, extract, impliedType, isUnusable, readBody } from "./body.ts";
import { defineInterface, dictionary, usv } from "./define.ts";
import { type HeaderLists, Headers, headerLists, headersOf } from "./headers.ts";
import { takeContent } from "./lazy-stream.ts";
import { TransformStream } from "./streams.ts";
import { hrefOf, parseUrl } from "./url.ts";

/** A request as the gateway received it: names are in lower case, and nothing is checked. */
export let serverRequest: (method: string, url: string, names: string[], values: string[]) => Request;
/** What `fetch` sends. The body is taken. */
export let requestParts: (request: Request) => {
  method: string;
  url: string;
  headers: HeaderLists;
  body: null | string | Uint8Array<ArrayBuffer> | Promise<Uint8Array<ArrayBuffer>>;
  hasBody: boolean;
  redirect: RequestRedirect;
  signal: AbortSignal | undefined;
};

interface Settings {
  mode: RequestMode;
  credentials: RequestCredentials;
  cache: RequestCache;
  redirect: RequestRedirect;
  referrer: string;
  referrerPolicy: ReferrerPolicy;
  integrity: string;
  keepalive: boolean;
}

const DEFAULTS: Settings = {
  mode: "cors",
  credentials: "same-origin",
  cache: "default",
  redirect: "follow",
  referrer: "about:client",
  referrerPolicy: "",
  integrity: "",
  keepalive: false,
};

const ENUMS: { [K in keyof Settings]?: readonly string[] } = {
  mode: ["navigate", "same-origin", "no-cors", "cors"],
  credentials: ["omit", "same-origin", "include"],
  cache: ["default", "no-store", "reload", "no-cache", "force-cache", "only-if-cached"],
  redirect: ["follow", "error", "manual"],
  referrerPolicy: [
    "",
    "no-referrer",
    "no-referrer-when-downgrade",
    "same-origin",
    "origin",
    "strict-origin",
    "origin-when-cross-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
  ],
};

let initialize: (request: Request, options: RequestInit) => void;

class Request {
  #method = "GET";
  #url = "";
  /** Whether the URL is serialized: a server's request has it as received until someone asks for it. */
  #parsed = true;
  #headers: Headers | undefined = undefined;
  #lists: HeaderLists | undefined = undefined;
  #body: Body | null = null;
  #settings: Settings = DEFAULTS;
  /** The caller's signal, until someone asks for the request's own. */
  #source: AbortSignal | undefined = undefined;
  #signal: AbortSignal | undefined = undefined;

  constructor(input: RequestInfo | globalThis.URL, init: RequestInit | null | undefined = undefined) {
    if ((input as unknown) === SERVER) return;
    const options = dictionary<RequestInit>(init, "The init of the request");
    const from = typeof input === "object" && input !== null && #method in input ? (input as unknown as Request) : undefined;
    if (from) {
      this.#method = from.#method;
      this.#url = from.#url;
      this.#parsed = from.#parsed;
      this.#settings = from.#settings;
      this.#source = from.#signal ?? from.#source;
    } else {
      const text = usv(input);
      const parts = parseUrl(text);
      if (!parts) throw Object.assign(new TypeError(`Failed to parse URL from ${text}`), { cause: new TypeError("Invalid URL") });
      // Indices of the user's name and of the end of the password.
      if (parts[5] > parts[2]) throw new TypeError(`Request cannot be constructed from a URL that includes credentials: ${text}`);
      this.#url = hrefOf(parts);
    }
    if (init !== undefined && init !== null) initialize(this, options);
    const { headers, body } = options;
    if (headers !== undefined) this.#headers = new Headers(headers);
    else if (from) {
      const [names, values] = from.#headers ? headerLists(from.#headers) : (from.#lists ?? [[], []]);
      this.#lists = [names.slice(), values.slice()];
    }
    if (body !== undefined && body !== null) {
      if (this.#method === "GET" || this.#method === "HEAD") throw new TypeError("Request with GET/HEAD method cannot have body.");
      const extracted = extract(body);
      const type = impliedType;
      if (extracted.source === undefined && (options as { duplex?: string }).duplex === undefined) {
        throw new TypeError("RequestInit: duplex option is required when sending a body.");
      }
      this.#body = extracted;
      if (type !== null && !this.headers.has("content-type")) this.headers.append("content-type", type);
    } else if (from !== undefined && from.#body) {
      if (this.#method === "GET" || this.#method === "HEAD") throw new TypeError("Request with GET/HEAD method cannot have body.");
      if (isUnusable(from.#body)) throw new TypeError("Cannot construct a Request with a Request object that has already been used.");
      this.#body = moved(from.#body);
    }
  }

  static {
    initialize = (request, options) => {
      if (options.window !== undefined && options.window !== null) throw new TypeError(`'window' option '${options.window}' must be null`);
      const settings: Settings = { ...request.#settings };
      for (const name of ["mode", "credentials", "cache", "redirect", "referrerPolicy"] as const) {
        const value = options[name];
        if (value === undefined) continue;
        const text = `${value}`;
        if (!ENUMS[name]?.includes(text)) throw new TypeError(`Request constructor: ${text} is not an accepted type. Expected one of ${ENUMS[name]?.join(", ")}.`);
        (settings as unknown as Record<string, string>)[name] = text;
      }
      if (settings.mode === "navigate") throw new TypeError("Request constructor: invalid request mode navigate.");
      if (settings.cache === "only-if-cached" && settings.mode !== "same-origin") throw new TypeError("'only-if-cached' can be set only with 'same-origin' mode");
      if (options.integrity !== undefined) settings.integrity = `${options.integrity}`;
      if (options.keepalive !== undefined) settings.keepalive = !!options.keepalive;
      if (options.referrer !== undefined) settings.referrer = referrerOf(options.referrer);
      request.#settings = settings;
      if (options.method !== undefined) request.#method = methodOf(options.method);
      if (options.signal !== undefined) {
        if (options.signal !== null && !((options.signal as unknown) instanceof AbortSignal)) {
          throw new TypeError("Failed to construct 'Request': member signal is not of type AbortSignal.");
        }
        request.#source = (options.signal as AbortSignal | null) ?? undefined;
      }
    };
    serverRequest = (method, url, names, values) => {
      const request = new Request(SERVER as never);
      request.#method = method;
      request.#url = url;
      request.#parsed = false;
      request.#lists = [names, values];
      return request;
    };
    requestParts = (request) => {
      const body = request.#body;
      if (body && isUnusable(body)) throw new TypeError("Cannot construct a Request with a Request object that has already been used.");
      return {
        method: request.#method,
        url: request.url,
        headers: headerLists(request.headers),
        body: body && readBody(body),
        hasBody: body !== null,
        redirect: request.#settings.redirect,
        signal: request.#signal ?? request.#source,
      };
    };
    defineBodyMethods(
      this,
      (self: Request) => self.#body,
      (self: Request) => self.headers.get("content-type"),
    );
  }

  get method(): string {
    return this.#method;
  }
  get url(): string {
    if (!this.#parsed) {
      const parts = parseUrl(this.#url);
      if (parts) this.#url = hrefOf(parts);
      this.#parsed = true;
    }
    return this.#url;
  }
  get headers(): Headers {
    return (this.#headers ??= headersOf(this.#lists ?? [[], []], "none"));
  }
  get destination(): RequestDestination {
    this.#method;
    return "";
  }
  get referrer(): string {
    return this.#settings.referrer;
  }
  get referrerPolicy(): ReferrerPolicy {
    return this.#settings.referrerPolicy;
  }
  get mode(): RequestMode {
    return this.#settings.mode;
  }
  get credentials(): RequestCredentials {
    return this.#settings.credentials;
  }
  get cache(): RequestCache {
    return this.#settings.cache;
  }
  get redirect(): RequestRedirect {
    return this.#settings.redirect;
  }
  get integrity(): string {
    return this.#settings.integrity;
  }
  get keepalive(): boolean {
    return this.#settings.keepalive;
  }
  get isReloadNavigation(): boolean {
    this.#method;
    return false;
  }
  get isHistoryNavigation(): boolean {
    this.#method;
    return false;
  }
  get signal(): AbortSignal {
    return (this.#signal ??= this.#source ? AbortSignal.any([this.#source]) : newSignal());
  }
  get duplex(): "half" {
    this.#method;
    return "half";
  }

  clone(): Request {
    if (this.#body && isUnusable(this.#body)) throw new TypeError("unusable");
    const request = new Request(SERVER as never);
    request.#method = this.#method;
    request.#url = this.#url;
    request.#parsed = this.#parsed;
    request.#settings = this.#settings;
    const [names, values] = this.#headers ? headerLists(this.#headers) : (this.#lists ?? [[], []]);
    request.#lists = [names.slice(), values.slice()];
    request.#body = this.#body && cloneBody(this.#body);
    request.#source = this.#signal ?? this.#source;
    return request;
  }
}
defineInterface(Request, "Request");
export { Request };

/** Makes the constructor create an empty request. */
const SERVER = Symbol("server");

/** The body of a request that another one takes over. */
function moved(body: Body): Body {
  const content = body.stream && takeContent(body.stream);
  const isStream = body.stream !== undefined && content === undefined;
  const copy = isStream ? new Body(undefined, body.stream!.pipeThrough(new TransformStream())) : new Body(content ?? body.source, undefined);
  body.used = true;
  return copy;
}

const NORMALIZED = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];

function methodOf(method: unknown): string {
  const text = `${method as string}`;
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text)) throw new TypeError(`'${text}' is not a valid HTTP method.`);
  const upper = text.toUpperCase();
  if (upper === "CONNECT" || upper === "TRACE" || upper === "TRACK") throw new TypeError(`'${text}' HTTP method is unsupported.`);
  return NORMALIZED.includes(upper) ? upper : text;
}

function referrerOf(referrer: unknown): string {
  const text = `${referrer as string}`;
  if (text === "") return "";
  const parts = parseUrl(text.toWellFormed());
  if (!parts) throw new TypeError(`Referrer "${text}" is not a valid URL.`);
  return hrefOf(parts);
}
