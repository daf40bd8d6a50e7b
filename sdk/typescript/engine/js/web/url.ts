// `URL`. The native parser gives the serialized URL and the positions of its components; getters slice.
import { defineInterface, need, usv } from "./define.ts";
import { blobUrl, revokeBlobUrl } from "./blob-url.ts";
import { onChange, paramsOf, setParams, type URLSearchParams } from "./search-params.ts";

// Indices into `UrlParts`.
const HREF = 0;
const SCHEME_END = 1;
const USERNAME = 2;
const USERNAME_END = 3;
const PASSWORD = 4;
const PASSWORD_END = 5;
const HOST = 6;
const HOST_END = 7;
const PORT = 8;
const PORT_END = 9;
const PATH = 10;
const PATH_END = 11;
const QUERY_END = 12;

const SPECIAL = new Set(["http:", "https:", "ws:", "wss:", "ftp:"]);

// A request's URL is parsed for `request.url`, and mostly again by the app.
let lastHref: string | undefined;
let lastParts: UrlParts | undefined;

/** A parsed URL, or nothing if it is invalid. */
export function parseUrl(url: string, base?: string): UrlParts | undefined {
  if (base === undefined && url === lastHref) return lastParts;
  const parts = native.urlParse(url, base);
  if (parts) {
    lastHref = parts[HREF];
    lastParts = parts;
  }
  return parts;
}

/** The serialized URL of a parsed one. */
export function hrefOf(parts: UrlParts): string {
  return parts[HREF];
}

let set: (url: URL, component: UrlComponent, value: unknown) => void;

class URL {
  #parts: UrlParts;
  #params: URLSearchParams | undefined = undefined;

  static {
    set = (url, component, value) => {
      const parts = native.urlSet(url.#parts[HREF], component, usv(value));
      if (parts) url.#parts = parts;
    };
    onChange((url, query) => set(url as URL, "search", query));
  }

  constructor(url: string | URL, base: string | URL | undefined = undefined) {
    const text = usv(url);
    const parts = parseUrl(text, base === undefined ? undefined : usv(base));
    if (!parts) throw invalid(text, base);
    this.#parts = parts;
  }

  static canParse(url: string | URL, base: string | URL | undefined = undefined): boolean {
    need(1, arguments.length, "URL.canParse");
    return parseUrl(usv(url), base === undefined ? undefined : usv(base)) !== undefined;
  }

  static parse(url: string | URL, base: string | URL | undefined = undefined): URL | null {
    need(1, arguments.length, "URL.parse");
    const parts = parseUrl(usv(url), base === undefined ? undefined : usv(base));
    // The constructor finds the last parsed URL.
    return parts ? new URL(parts[HREF]) : null;
  }

  static createObjectURL(blob: Blob): string {
    return blobUrl(blob);
  }

  static revokeObjectURL(url: string): void {
    revokeBlobUrl(`${url}`);
  }

  get href(): string {
    return this.#parts[HREF];
  }
  set href(value: string) {
    const text = usv(value);
    const parts = parseUrl(text);
    if (!parts) throw invalid(text, undefined);
    this.#parts = parts;
    if (this.#params) setParams(this.#params, this.search.slice(1));
  }

  get origin(): string {
    const { protocol } = this;
    if (SPECIAL.has(protocol)) return `${protocol}//${this.host}`;
    if (protocol !== "blob:") return "null";
    const inner = native.urlParse(this.pathname, undefined);
    const scheme = inner?.[HREF].slice(0, inner[SCHEME_END] + 1);
    return inner && (scheme === "http:" || scheme === "https:") ? `${scheme}//${inner[HREF].slice(inner[HOST], inner[PORT_END])}` : "null";
  }

  get protocol(): string {
    return this.#parts[HREF].slice(0, this.#parts[SCHEME_END] + 1);
  }
  set protocol(value: string) {
    set(this, "protocol", value);
  }

  get username(): string {
    return this.#parts[HREF].slice(this.#parts[USERNAME], this.#parts[USERNAME_END]);
  }
  set username(value: string) {
    set(this, "username", value);
  }

  get password(): string {
    return this.#parts[HREF].slice(this.#parts[PASSWORD], this.#parts[PASSWORD_END]);
  }
  set password(value: string) {
    set(this, "password", value);
  }

  get host(): string {
    return this.#parts[HREF].slice(this.#parts[HOST], this.#parts[PORT_END]);
  }
  set host(value: string) {
    set(this, "host", value);
  }

  get hostname(): string {
    return this.#parts[HREF].slice(this.#parts[HOST], this.#parts[HOST_END]);
  }
  set hostname(value: string) {
    set(this, "hostname", value);
  }

  get port(): string {
    return this.#parts[HREF].slice(this.#parts[PORT], this.#parts[PORT_END]);
  }
  set port(value: string) {
    set(this, "port", value);
  }

  get pathname(): string {
    return this.#parts[HREF].slice(this.#parts[PATH], this.#parts[PATH_END]);
  }
  set pathname(value: string) {
    set(this, "pathname", value);
  }

  get search(): string {
    const parts = this.#parts;
    // A lone question mark is an empty query.
    return parts[QUERY_END] - parts[PATH_END] < 2 ? "" : parts[HREF].slice(parts[PATH_END], parts[QUERY_END]);
  }
  set search(value: string) {
    set(this, "search", value);
    if (this.#params) setParams(this.#params, this.search.slice(1));
  }

  get searchParams(): URLSearchParams {
    return (this.#params ??= paramsOf(this.search.slice(1), this));
  }

  get hash(): string {
    const parts = this.#parts;
    return parts[HREF].length - parts[QUERY_END] < 2 ? "" : parts[HREF].slice(parts[QUERY_END]);
  }
  set hash(value: string) {
    set(this, "hash", value);
  }

  toString(): string {
    return this.#parts[HREF];
  }

  toJSON(): string {
    return this.#parts[HREF];
  }
}
defineInterface(URL, "URL");
export { URL };

/** The error of Node, whose code libraries compare. */
function invalid(input: string, base: unknown): TypeError {
  const error = new TypeError("Invalid URL");
  return Object.assign(error, { code: "ERR_INVALID_URL", input }, base === undefined ? {} : { base: `${base}` });
}
