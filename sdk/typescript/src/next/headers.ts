// `next/headers` for middlewares of Next.js apps, read-only.
import { current } from "../current.ts";
import { RequestCookies } from "./cookies.ts";

/** The request's headers, as a value (Next.js 14) and as a promise (Next.js 15). */
export function headers() {
  return both(new Headers(current("headers()").headers));
}

/** The request's cookies, as a value (Next.js 14) and as a promise (Next.js 15). */
export function cookies() {
  return both(new RequestCookies(current("cookies()").headers));
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
