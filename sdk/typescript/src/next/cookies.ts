// A request's cookies as in Next.js: decoded, and the last one with a name counts.

/** A cookie. */
export interface RequestCookie {
  name: string;
  value: string;
}

/** The cookies of a request, read-only. */
export class RequestCookies {
  readonly #cookies = new Map<string, RequestCookie>();

  constructor(headers: Headers) {
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

  get(name: string): RequestCookie | undefined {
    return this.#cookies.get(name);
  }

  getAll(name?: string): RequestCookie[] {
    return [...this.#cookies.values()].filter((cookie) => name === undefined || cookie.name === name);
  }

  has(name: string): boolean {
    return this.#cookies.has(name);
  }

  [Symbol.iterator](): IterableIterator<[string, RequestCookie]> {
    return this.#cookies[Symbol.iterator]();
  }

  /** Throws: a policy sets cookies with `set-cookie` headers of its response. */
  set(): never {
    throw new Error("a policy cannot set cookies here: use the headers of its Response, or of allow()");
  }

  delete(): never {
    return this.set();
  }
}
