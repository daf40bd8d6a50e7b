// `Response`.
import { Body, cloneBody, defineBodyMethods, extract, impliedType, type Incoming, isUnusable, readBody } from "./body.ts";
import { defineInterface, dictionary, need } from "./define.ts";
import { type HeaderLists, Headers, headerLists, headersOf } from "./headers.ts";
import type { AnyStream } from "./streams.ts";
import { hrefOf, parseUrl } from "./url.ts";

/** The lists of a response's headers. */
export let responseHeaders: (response: Response) => HeaderLists;
/** Takes the body of a response: a string as it is; nothing if there is no body. */
export let takeBody: (response: Response) => null | string | Uint8Array<ArrayBuffer> | Promise<Uint8Array<ArrayBuffer>>;
/** A response of a server. */
export let networkResponse: (parts: {
  status: number;
  statusText?: string;
  headers: HeaderLists;
  url: string;
  redirected: boolean;
  body: Incoming | string | Uint8Array<ArrayBuffer> | null;
  type?: ResponseType;
}) => Response;

/** The stream of a response's body, if there is one already. A body of another kind becomes a stream only when code asks for it. */
export let existingStream: (response: Response) => AnyStream | undefined;

let initialize: (response: Response, init: ResponseInit | null) => void;
/** Adds the content type that a body implies. */
let imply: (response: Response, type: string | null) => void;

const NO_HEADERS: HeaderLists = [[], []];

/** What most responses have in common. */
interface Rest {
  statusText: string;
  url: string;
  type: ResponseType;
  redirected: boolean;
}
const DEFAULTS: Rest = { statusText: "", url: "", type: "default", redirected: false };

class Response {
  #status = 200;
  /** The headers; until someone asks for them, only the content type that the body implies. */
  #headers: Headers | undefined = undefined;
  #contentType: string | null = null;
  #body: Body | null = null;
  #rest: Rest = DEFAULTS;

  constructor(body: BodyInit | null | undefined = undefined, init: ResponseInit | null | undefined = undefined) {
    if (init !== undefined) initialize(this, init);
    if (body === undefined || body === null) return;
    this.#body = extract(body);
    if (NULL_BODY.includes(this.#status)) throw new TypeError(`Response constructor: Invalid response status code ${this.#status}`);
    imply(this, impliedType);
  }

  // Functions instead of private methods, which cost each object a property.
  static {
    initialize = (response, init) => {
      const { headers, status, statusText } = dictionary<ResponseInit>(init, "The init of the response");
      if (status !== undefined) {
        const code = unsignedShort(status);
        if (code < 200 || code > 599) throw new RangeError('init["status"] must be in the range of 200 to 599, inclusive.');
        response.#status = code;
      }
      if (statusText !== undefined) {
        const text = `${statusText}`;
        if (/[^\t\x20-\x7e\x80-\xff]/.test(text)) throw new TypeError("Invalid statusText");
        if (text !== "") response.#rest = { ...DEFAULTS, statusText: text };
      }
      if (headers !== undefined) response.#headers = new Headers(headers);
    };
    imply = (response, type) => {
      if (type === null) return;
      if (!response.#headers) response.#contentType = type;
      else if (!response.#headers.has("content-type")) response.#headers.append("content-type", type);
    };
    responseHeaders = (response) => {
      if (response.#headers) return headerLists(response.#headers);
      return response.#contentType === null ? NO_HEADERS : [["content-type"], [response.#contentType]];
    };
    takeBody = (response) => {
      if (response.#body === null) return null;
      if (isUnusable(response.#body)) throw new TypeError("Body is unusable: Body has already been read");
      return readBody(response.#body);
    };
    networkResponse = ({ status, statusText = "", headers, url, redirected, body, type = "basic" }) => {
      const response = new Response();
      response.#status = status;
      response.#headers = headersOf(headers, "immutable");
      response.#rest = { statusText, url, type, redirected };
      response.#body = body === null ? null : new Body(body, undefined);
      return response;
    };
    existingStream = (response) => (response.#body === null ? undefined : response.#body.stream);
    defineBodyMethods(
      this,
      (self: Response) => self.#body,
      (self: Response) => (self.#headers ? self.#headers.get("content-type") : self.#contentType),
    );
  }

  static error(): Response {
    return networkResponse({ status: 0, headers: [[], []], url: "", redirected: false, body: null, type: "error" });
  }

  static json(data: unknown, init: ResponseInit | null | undefined = undefined): Response {
    need(1, arguments.length, "Response.json");
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError("Value is not JSON serializable");
    const response = new Response(null, init);
    if (NULL_BODY.includes(response.#status)) throw new TypeError(`Response constructor: Invalid response status code ${response.#status}`);
    response.#body = new Body(text.isWellFormed() ? text : text.toWellFormed(), undefined);
    imply(response, "application/json");
    return response;
  }

  static redirect(url: string | globalThis.URL, status: number | undefined = 302): Response {
    need(1, arguments.length, "Response.redirect");
    const text = `${url as string}`;
    const parts = parseUrl(text.toWellFormed());
    if (!parts) throw new TypeError(`Failed to parse URL from ${text}`);
    const code = unsignedShort(status);
    if (!REDIRECTS.includes(code)) throw new RangeError(`Invalid status code ${status}`);
    const response = new Response();
    response.#status = code;
    response.#headers = headersOf([["location"], [hrefOf(parts)]], "immutable");
    return response;
  }

  get type(): ResponseType {
    return this.#rest.type;
  }
  get url(): string {
    const { url } = this.#rest;
    const hash = url.indexOf("#");
    return hash < 0 ? url : url.slice(0, hash);
  }
  get redirected(): boolean {
    return this.#rest.redirected;
  }
  get status(): number {
    return this.#status;
  }
  get ok(): boolean {
    return this.#status >= 200 && this.#status <= 299;
  }
  get statusText(): string {
    return this.#rest.statusText;
  }
  get headers(): Headers {
    return (this.#headers ??= headersOf(this.#contentType === null ? [[], []] : [["content-type"], [this.#contentType]], "none"));
  }

  clone(): Response {
    if (this.#body && isUnusable(this.#body)) throw new TypeError("Response.clone: Body has already been consumed.");
    const response = new Response();
    response.#status = this.#status;
    response.#contentType = this.#contentType;
    if (this.#headers) {
      const [names, values] = headerLists(this.#headers);
      response.#headers = headersOf([names.slice(), values.slice()], this.#rest.type === "default" ? "none" : "immutable");
    }
    response.#body = this.#body && cloneBody(this.#body);
    response.#rest = this.#rest;
    return response;
  }
}
defineInterface(Response, "Response");
export { Response };

const NULL_BODY: readonly number[] = [101, 204, 205, 304];
export const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

function unsignedShort(value: unknown): number {
  return Math.trunc(Number(value)) & 0xffff;
}
