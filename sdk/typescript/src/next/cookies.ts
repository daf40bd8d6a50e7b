// A request's cookies as Next.js shows them: decoded, and the last of a name.

/** A cookie. */
export interface RequestCookie {
  name: string;
  value: string;
}

/** The cookies of a request, to read. */
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
        // What cannot be decoded is passed over there, too.
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

  /** Nothing is set here: a policy's response may have `set-cookie` headers. */
  set(): never {
    throw new Error("a policy sets cookies by the headers of its Response, or of allow()");
  }

  delete(): never {
    return this.set();
  }
}
