// Errors that no code of the app handles.

/** Rejected promises without a handler, with their reasons. */
const unhandled = new Map<Promise<unknown>, unknown>();

/** Called by the engine when a promise is rejected without a handler, and when it gets one afterwards. */
export function rejected(promise: Promise<unknown>, reason: unknown, isHandled: boolean): void {
  if (isHandled) unhandled.delete(promise);
  else unhandled.set(promise, reason);
}

/** Logs the promises that no one handled. */
export function logRejections(): void {
  for (const reason of unhandled.values()) console.error("unhandled rejection:", reason);
  unhandled.clear();
}

/** Called for an uncaught exception of a timer or a job. */
export function reportError(error: unknown): void {
  console.error("uncaught:", error);
}

const property = { writable: true, enumerable: true, configurable: true };
Object.defineProperty(globalThis, "reportError", { value: reportError, ...property });
if (typeof globalThis.queueMicrotask !== "function") {
  const done = Promise.resolve();
  const value = function queueMicrotask(call: () => void): void {
    if (typeof call !== "function") throw new TypeError("The callback of queueMicrotask must be a function");
    done.then(call).catch(reportError);
  };
  Object.defineProperty(globalThis, "queueMicrotask", { value, ...property });
}
