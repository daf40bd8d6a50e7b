// The request that is decided on, for what has no other way to it. An instance decides once.
const SLOT = Symbol.for("tidegate.policy.request");

/** Says which request it is. */
export function setCurrent(request: Request): void {
  (globalThis as { [SLOT]?: Request })[SLOT] = request;
}

/** The request; outside of a decision an error. */
export function current(asking: string): Request {
  const request = (globalThis as { [SLOT]?: Request })[SLOT];
  if (!request) throw new Error(`${asking} was called outside of a request`);
  return request;
}
