// Stands in for @upstash/realtime where an app has not installed it: only what serves no policy is left out.
export { handle } from "./handle.ts";

/** Carries what it is given, and does nothing. */
export class Realtime {
  constructor(options: object = {}) {
    Object.assign(this, options);
  }

  /** Nothing can be emitted or read here. */
  channel(name: string): never {
    throw new Error(`a policy was built without @upstash/realtime, so it has no channel ${JSON.stringify(name)} to use: install the package where the route file is`);
  }
}

export type InferRealtimeEvents<T> = T extends { schema: infer Schema } ? Schema : never;
