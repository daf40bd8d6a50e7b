// Waiting for conditions. Every wait has a deadline, and a missed deadline reports the last output of the processes under test.
import { setTimeout as pause } from "node:timers/promises";

/** Functions that describe the running processes, for the message of a missed deadline. */
export const witnesses = new Set();

/** Polls `condition` until it returns a truthy value, and returns that. */
export async function until(what, condition, { within = 10_000, every = 15 } = {}) {
  const deadline = performance.now() + within;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`not within ${within} ms: ${describe(what)}${testimony()}`);
    await pause(every);
  }
}

/** The promise's value, or an error when it takes too long. */
export async function inTime(what, promise, within = 10_000) {
  const abort = new AbortController();
  try {
    return await Promise.race([
      promise,
      pause(within, undefined, { signal: abort.signal }).then(() => {
        throw new Error(`not within ${within} ms: ${describe(what)}${testimony()}`);
      }),
    ]);
  } finally {
    abort.abort();
  }
}

/** The descriptions of the running processes, as text to append to an error. */
export function testimony() {
  return [...witnesses].map((witness) => `\n${witness()}`).join("");
}

function describe(what) {
  return typeof what === "function" ? what() : what;
}
