// The current request, for APIs without a request parameter, such as those of Next.js. An instance decides once.
const SLOT = Symbol.for("tidegate.policy.request");

/** Sets the current request. */
export function setCurrent(request: Request): void {
  (globalThis as { [SLOT]?: Request })[SLOT] = request;
}

/** Returns the current request. Throws outside of a decision. */
export function current(caller: string): Request {
  const request = (globalThis as { [SLOT]?: Request })[SLOT];
  if (!request) throw new Error(`${caller} was called outside of a request`);
  return request;
}
