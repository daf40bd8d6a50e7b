// Replaces @upstash/realtime if the app has not installed it, with the exports that a policy can use.
export { handle } from "./handle.ts";

/** A substitute that only keeps its options. */
export class Realtime {
  constructor(options: object = {}) {
    Object.assign(this, options);
  }

  /** A policy can neither emit nor read events. */
  channel(name: string): never {
    throw new Error(`the policy was built without @upstash/realtime and cannot use channel ${JSON.stringify(name)}: install the package in the app of the route file`);
  }
}

export type InferRealtimeEvents<T> = T extends { schema: infer Schema } ? Schema : never;
