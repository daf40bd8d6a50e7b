// `next/server` for middlewares of Next.js apps. The request of a decision is a `NextRequest`.
import { RequestCookies, ResponseCookies } from "./cookies.ts";

export { userAgent, userAgentFromString } from "./user-agent.ts";

/** Marks requests of all copies of this module: the runtime has one, and the app another. */
const IS_NEXT = Symbol.for("tidegate.policy.next");
// Not private fields, because a plain `Request` becomes a `NextRequest`.
const COOKIES = Symbol("cookies");
const NEXT_URL = Symbol("nextUrl");

/** A URL with the properties of Next.js for apps without a base path and locales. */
export class NextURL extends URL {
  basePath = "";
  buildId: string | undefined;
  locale = "";
  defaultLocale: string | undefined;
  domainLocale: undefined;

  clone(): NextURL {
    return new NextURL(this.href);
  }
}

/** A request with its cookies and its parsed URL. */
export class NextRequest extends Request {
  declare [COOKIES]?: RequestCookies;
  declare [NEXT_URL]?: NextURL;

  get cookies(): RequestCookies {
    return (this[COOKIES] ??= new RequestCookies(this.headers));
  }

  get nextUrl(): NextURL {
    return (this[NEXT_URL] ??= new NextURL(this.url));
  }

  get [IS_NEXT](): true {
    return true;
  }

  static override [Symbol.hasInstance](it: unknown): boolean {
    if (this !== NextRequest) return Function.prototype[Symbol.hasInstance].call(this, it);
    return typeof it === "object" && it !== null && IS_NEXT in it;
  }
}

/** Makes a request a `NextRequest`; its properties are created when they are used. */
export function asNextRequest(request: Request): NextRequest {
  return Object.setPrototypeOf(request, NextRequest.prototype) as NextRequest;
}

/** A response with cookies, and with the static constructors of Next.js. */
export class NextResponse extends Response {
  #cookies: ResponseCookies | undefined;

  get cookies(): ResponseCookies {
    return (this.#cookies ??= new ResponseCookies(this.headers));
  }

  static override json(body: unknown, init?: ResponseInit): NextResponse {
    const response = Response.json(body, init);
    return new NextResponse(response.body, response);
  }

  static override redirect(url: string | URL, init?: number | ResponseInit): NextResponse {
    const { status = 307, ...more } = typeof init === "object" ? init : { status: init };
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`a redirect has the status 301, 302, 303, 307 or 308, not ${status}`);
    const response = new NextResponse(null, { ...more, status });
    response.headers.set("location", new URL(url).href);
    return response;
  }

  static rewrite(destination: string | URL, init?: ResponseInit): NextResponse {
    return marked("x-middleware-rewrite", new URL(destination).href, init);
  }

  static next(init?: ResponseInit): NextResponse {
    return marked("x-middleware-next", "1", init);
  }
}

function marked(header: string, value: string, init?: ResponseInit): NextResponse {
  const response = new NextResponse(null, init);
  response.headers.set(header, value);
  return response;
}

/** Waits for a request, which a policy always has. */
export async function connection(): Promise<void> {}

/** Throws: nothing runs after a decision. */
export function after(): never {
  throw new Error("after() cannot run anything in a policy: its instance ends with the decision");
}
