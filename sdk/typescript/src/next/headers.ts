// `next/headers` for middlewares of Next.js apps.
import { current, currentSetCookie } from "../current.ts";
import { RequestCookies, ResponseCookies, type SetArguments } from "./cookies.ts";

/** The request's headers, read-only, as a value (Next.js 14) and as a promise (Next.js 15). */
export function headers() {
  return both(readOnly(current("headers()").headers));
}

/** The request's cookies, as a value (Next.js 14) and as a promise (Next.js 15). The answer sets those that `set` and `delete` change. */
export function cookies() {
  return both(new RouteCookies(current("cookies()").headers));
}

/** Draft mode is never enabled in a policy. */
export function draftMode() {
  const refuse = (): never => {
    throw new Error("draft mode cannot be changed in a policy");
  };
  return both({ isEnabled: false, enable: refuse, disable: refuse });
}

/** A copy that refuses changes. */
function readOnly(headers: Headers): Headers {
  const copy = new Headers(headers);
  const value = (): never => {
    throw new Error("headers() is read-only: set headers on the response");
  };
  return Object.defineProperties(copy, { append: { value }, set: { value }, delete: { value } });
}

/** As in a route handler: a change is visible at once, and becomes a `set-cookie` header of the answer. */
class RouteCookies extends RequestCookies {
  constructor(headers: Headers) {
    const copy = new Headers();
    copy.set("cookie", headers.get("cookie") ?? "");
    super(copy);
    for (const { name, value, expires } of new ResponseCookies(currentSetCookie("cookies()")).getAll()) {
      if (expires !== undefined && Number(expires) <= 0) super.delete(name);
      else super.set(name, value);
    }
  }

  override set(...args: SetArguments): this {
    new ResponseCookies(currentSetCookie("cookies()")).set(...args);
    return super.set(...args);
  }

  override delete(names: string | string[] | { name: string }): boolean | boolean[] {
    const cookies = typeof names === "object" && !Array.isArray(names) ? [names] : [names].flat();
    const set = new ResponseCookies(currentSetCookie("cookies()"));
    for (const cookie of cookies) set.delete(cookie);
    return super.delete(cookies.map((cookie) => (typeof cookie === "string" ? cookie : cookie.name)));
  }
}

/** A promise of `value` that also is `value`. */
function both<T extends object>(value: T): T & Promise<T> {
  const promise = Promise.resolve(value);
  return new Proxy(value, {
    get(target, name) {
      const owner: object = name === "then" || name === "catch" || name === "finally" ? promise : target;
      const found = Reflect.get(owner, name, owner);
      return typeof found === "function" ? found.bind(owner) : found;
    },
  }) as T & Promise<T>;
}
