// Cookies of a request and of a response, with the interface of Next.js.

/** A cookie. */
export interface RequestCookie {
  name: string;
  value: string;
}

/** A cookie that a response sets. */
export interface ResponseCookie extends RequestCookie {
  path?: string;
  expires?: Date | number;
  /** In seconds. */
  maxAge?: number;
  domain?: string;
  secure?: boolean;
  httpOnly?: boolean;
  sameSite?: true | false | "lax" | "strict" | "none";
  partitioned?: boolean;
  priority?: "low" | "medium" | "high";
}

type Named = string | { name: string };

/** The forms of `set`: a name, a value and attributes, or a cookie. */
export type SetArguments = [name: string, value: string, attributes?: Partial<ResponseCookie>] | [cookie: ResponseCookie];

/** The cookies of a request: decoded, and the last one with a name counts. `set` and `delete` change the request's header. */
export class RequestCookies {
  readonly #headers: Headers;
  readonly #cookies = new Map<string, RequestCookie>();

  constructor(headers: Headers) {
    this.#headers = headers;
    for (const pair of (headers.get("cookie") ?? "").split(/; */)) {
      if (!pair) continue;
      const equals = pair.indexOf("=");
      const [name, value] = equals < 0 ? [pair, "true"] : [pair.slice(0, equals), pair.slice(equals + 1)];
      try {
        this.#cookies.set(name, { name, value: decodeURIComponent(value) });
      } catch {
        // Next.js skips cookies that cannot be decoded, too.
      }
    }
  }

  get size(): number {
    return this.#cookies.size;
  }

  get(cookie: Named): RequestCookie | undefined {
    return this.#cookies.get(nameOf(cookie));
  }

  getAll(cookie?: Named): RequestCookie[] {
    const all = [...this.#cookies.values()];
    return cookie === undefined ? all : all.filter(({ name }) => name === nameOf(cookie));
  }

  has(name: string): boolean {
    return this.#cookies.has(name);
  }

  set(...args: SetArguments): this {
    const { name, value } = cookieOf(args);
    this.#cookies.set(name, { name, value });
    this.#update();
    return this;
  }

  delete(names: string | string[]): boolean | boolean[] {
    const deleted = Array.isArray(names) ? names.map((name) => this.#cookies.delete(name)) : this.#cookies.delete(names);
    this.#update();
    return deleted;
  }

  clear(): this {
    this.#cookies.clear();
    this.#update();
    return this;
  }

  toString(): string {
    return this.getAll()
      .map(({ name, value }) => `${name}=${encodeURIComponent(value)}`)
      .join("; ");
  }

  [Symbol.iterator](): IterableIterator<[string, RequestCookie]> {
    return this.#cookies[Symbol.iterator]();
  }

  #update(): void {
    this.#headers.set("cookie", this.toString());
  }
}

/** The cookies that a response sets. Each change is written to its `set-cookie` headers. */
export class ResponseCookies {
  readonly #headers: Headers;
  readonly #cookies = new Map<string, ResponseCookie>();

  constructor(headers: Headers) {
    this.#headers = headers;
    for (const line of headers.getSetCookie()) {
      const cookie = parseSetCookie(line);
      if (cookie) this.#cookies.set(cookie.name, cookie);
    }
  }

  get(cookie: Named): ResponseCookie | undefined {
    return this.#cookies.get(nameOf(cookie));
  }

  getAll(cookie?: Named): ResponseCookie[] {
    const all = [...this.#cookies.values()];
    return cookie === undefined ? all : all.filter(({ name }) => name === nameOf(cookie));
  }

  has(name: string): boolean {
    return this.#cookies.has(name);
  }

  set(...args: SetArguments): this {
    const cookie = withDefaults(cookieOf(args));
    this.#cookies.set(cookie.name, cookie);
    this.#headers.delete("set-cookie");
    for (const each of this.#cookies.values()) this.#headers.append("set-cookie", formatSetCookie(each));
    return this;
  }

  delete(cookie: string | Omit<ResponseCookie, "value" | "expires" | "maxAge">): this {
    const attributes = typeof cookie === "string" ? { name: cookie } : cookie;
    return this.set({ ...attributes, value: "", expires: new Date(0) });
  }

  toString(): string {
    return this.getAll().map(formatSetCookie).join("; ");
  }
}

function nameOf(cookie: Named): string {
  return typeof cookie === "string" ? cookie : cookie.name;
}

function cookieOf(args: SetArguments): ResponseCookie {
  if (args.length === 1) return args[0];
  const [name, value, attributes] = args;
  return { ...attributes, name, value };
}

function withDefaults(cookie: ResponseCookie): ResponseCookie {
  const expires = cookie.maxAge ? new Date(Date.now() + cookie.maxAge * 1000) : cookie.expires;
  return { ...cookie, path: cookie.path ?? "/", ...(expires === undefined ? {} : { expires }) };
}

/** A cookie as the value of a `set-cookie` header. */
export function formatSetCookie(cookie: ResponseCookie): string {
  const { name, value, path, expires, maxAge, domain, secure, httpOnly, sameSite, partitioned, priority } = cookie;
  const parts = [`${name}=${encodeURIComponent(value ?? "")}`];
  if (path) parts.push(`Path=${path}`);
  if (expires || expires === 0) parts.push(`Expires=${new Date(expires).toUTCString()}`);
  if (typeof maxAge === "number") parts.push(`Max-Age=${maxAge}`);
  if (domain) parts.push(`Domain=${domain}`);
  if (secure) parts.push("Secure");
  if (httpOnly) parts.push("HttpOnly");
  if (sameSite) parts.push(`SameSite=${sameSite === true ? "strict" : sameSite}`);
  if (partitioned) parts.push("Partitioned");
  if (priority) parts.push(`Priority=${priority}`);
  return parts.join("; ");
}

function parseSetCookie(line: string): ResponseCookie | undefined {
  const [pair = "", ...attributes] = line.split(/; */);
  const equals = pair.indexOf("=");
  if (equals < 1) return undefined;
  const cookie: ResponseCookie = { name: pair.slice(0, equals), value: pair.slice(equals + 1) };
  try {
    cookie.value = decodeURIComponent(cookie.value);
  } catch {
    // A value that is not encoded stays as it is.
  }
  for (const attribute of attributes) {
    const [name = "", value = ""] = attribute.split("=");
    switch (name.toLowerCase()) {
      case "path":
        cookie.path = value;
        break;
      case "expires":
        cookie.expires = new Date(value);
        break;
      case "max-age":
        cookie.maxAge = Number(value);
        break;
      case "domain":
        cookie.domain = value;
        break;
      case "secure":
        cookie.secure = true;
        break;
      case "httponly":
        cookie.httpOnly = true;
        break;
      case "samesite":
        cookie.sameSite = value.toLowerCase() as "lax" | "strict" | "none";
        break;
      case "partitioned":
        cookie.partitioned = true;
        break;
      case "priority":
        cookie.priority = value.toLowerCase() as "low" | "medium" | "high";
        break;
    }
  }
  return cookie;
}
