// The current request, for APIs without a request parameter, such as those of Next.js. An instance decides once.
const SLOT = Symbol.for("tidegate.policy.request");

/** The request that is being decided. */
interface Current {
  request: Request;
  /** The channels of its URL, if they are known. */
  channels: readonly string[] | undefined;
  /** `set-cookie` lines of `cookies().set()`, for any answer. */
  setCookie: Headers | undefined;
}

const slot = globalThis as { [SLOT]?: Current };

/** Sets the current request. */
export function setCurrent(request: Request, channels: readonly string[] | undefined): void {
  slot[SLOT] = { request, channels, setCookie: undefined };
}

/** The channels of the current request's URL, if they are known: the gateway has parsed it. */
export function currentChannels(request: Request): string[] | undefined {
  const found = slot[SLOT];
  return found?.request === request ? found.channels?.slice() : undefined;
}

/** Returns the current request. Throws outside of a decision. */
export function current(caller: string): Request {
  return currentOf(caller).request;
}

/** The `set-cookie` headers that code sets without a response. */
export function currentSetCookie(caller: string): Headers {
  return (currentOf(caller).setCookie ??= new Headers());
}

/** The `set-cookie` lines that were set so far. */
export function setCookieLines(): string[] {
  return slot[SLOT]?.setCookie?.getSetCookie() ?? [];
}

function currentOf(caller: string): Current {
  const found = slot[SLOT];
  if (!found) throw new Error(`${caller} was called outside of a request`);
  return found;
}
