// Waiting for conditions. Every wait has a deadline, and a missed deadline reports the last output of the processes under test.
import { setTimeout as pause } from "node:timers/promises";

/** Functions that return the recent output of the running processes, for the message of a missed deadline. */
export const processLogs = new Set();

/** Polls `condition` until it returns a truthy value, and returns that. */
export async function until(description, condition, { within = 10_000, every = 15 } = {}) {
  const deadline = performance.now() + within;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`not within ${within} ms: ${describe(description)}${describeProcesses()}`);
    await pause(every);
  }
}

/** Awaits a promise, and throws an error after the deadline. */
export async function inTime(description, promise, within = 10_000) {
  const abort = new AbortController();
  try {
    return await Promise.race([
      promise,
      pause(within, undefined, { signal: abort.signal }).then(() => {
        throw new Error(`not within ${within} ms: ${describe(description)}${describeProcesses()}`);
      }),
    ]);
  } finally {
    abort.abort();
  }
}

/** The recent output of the running processes, as text to append to an error. */
export function describeProcesses() {
  return [...processLogs].map((log) => `\n${log()}`).join("");
}

function describe(description) {
  return typeof description === "function" ? description() : description;
}
