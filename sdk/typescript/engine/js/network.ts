// Outbound requests: promises for the events that the event loop reports.

/** A promise that the event loop settles. */
interface Waiter {
  resolve(value: never): void;
  reject(error: unknown): void;
}

/** The promise that waits for the next event, by request. A request has one at most: the head, then part after part. */
const waiters = new Map<number, Waiter>();
/** Heads and failures that arrived before anything waited for them. */
const early = new Map<number, [kind: string, value: unknown, fields: unknown]>();
let lastId = 0;

Object.assign(native, {
  fetchStart(method: string, url: string, fields: string[], body: Uint8Array | null): number {
    native.networkSend(++lastId, method, url, fields, body);
    return lastId;
  },
  fetchHead: next,
  fetchRead(id: number): Promise<Uint8Array | null> {
    native.networkRead(id);
    return next(id);
  },
  fetchCancel(id: number): void {
    waiters.delete(id);
    early.delete(id);
    native.networkCancel(id);
  },
});

function next<T>(id: number): Promise<T> {
  return new Promise((resolve, reject) => {
    waiters.set(id, { resolve, reject });
    const event = early.get(id);
    if (event && early.delete(id)) networkEvent(id, ...event);
  });
}

/** Called by the event loop. `value` is the status of a head, the bytes of a part or nothing at the end, or the text of an error. */
export function networkEvent(id: number, kind: string, value: unknown, fields: unknown): void {
  const waiter = waiters.get(id);
  if (!waiter) return void early.set(id, [kind, value, fields]);
  waiters.delete(id);
  if (kind === "head") waiter.resolve({ status: value, headers: fields } as never);
  else if (kind === "chunk") waiter.resolve(value as never);
  else waiter.reject(new TypeError("fetch failed", { cause: new Error(String(value)) }));
}
