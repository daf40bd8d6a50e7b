// Waiting for conditions. Everything that a test waits for has a deadline, and a missed deadline says what the
// processes under test had to say last.
import { setTimeout as pause } from "node:timers/promises";

/** Functions that describe what is running, for the message of a missed deadline. */
export const witnesses = new Set();

/** Polls `condition` until it gives something truthy, and gives that back. */
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

/** What the witnesses say, as text to append to an error. */
export function testimony() {
  return [...witnesses].map((witness) => `\n${witness()}`).join("");
}

function describe(what) {
  return typeof what === "function" ? what() : what;
}
