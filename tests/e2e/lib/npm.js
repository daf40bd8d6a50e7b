// The unchanged server half of @upstash/realtime, as an app would set it up.
import { Realtime } from "@upstash/realtime";
import { Redis } from "@upstash/redis";
import { z } from "zod";

/** The schema of the events that the tests emit; the package validates data with it. */
export const schema = {
  chat: { message: z.object({ n: z.number(), text: z.string() }) },
  any: z.any(),
};

/** `new Redis()` against a gateway's `/redis`. */
export function restClient(gateway, token) {
  return new Redis({ url: `${gateway}/redis`, token, enableTelemetry: false });
}

/** `new Realtime()` against a gateway's `/redis`; `options` are the package's. */
export function emitter(gateway, token, options = {}) {
  return new Realtime({ schema, redis: restClient(gateway, token), ...options });
}

/**
 * The package's `subscribe()` starts a 60 s interval that its own unsubscribe never ends, which would keep the test's process
 * alive. After this call, intervals do not keep it alive.
 */
export function unrefIntervals() {
  const original = globalThis.setInterval;
  globalThis.setInterval = (...args) => original(...args).unref();
}
