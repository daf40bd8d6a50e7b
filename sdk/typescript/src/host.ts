// The host functions of wit/policy.wit in JavaScript.

/** A header of the interface: the name in lower case, the value as bytes. */
export interface WitHeader {
  name: string;
  value: Uint8Array;
}

/** The interfaces that a policy imports. */
export interface Host {
  context: {
    now(): bigint;
    requestId(): string;
    action(): string;
    log(level: Level, message: string): void;
  };
  answer: {
    reason(text: string): void;
    replaySince(time: bigint): void;
    cacheFor(seconds: number, vary: string[]): void;
    cacheAnyAddress(): void;
  };
  lookup: {
    get(key: string): Uint8Array | null | undefined;
    hashGet(key: string, field: string): Uint8Array | null | undefined;
    setContains(key: string, member: string): boolean;
  };
  tokens: {
    verify(token: string): string;
    verifyWith(profile: string, token: string): string;
  };
  settings: {
    get(name: string): string | null | undefined;
  };
}

/** The level of a log line. */
export type Level = "debug" | "info" | "warn" | "error";

// In the global symbol registry, because the app and the runtime may have different copies of this package.
const SLOT = Symbol.for("tidegate.policy.host");

type Slot = { [SLOT]?: Host };

/** The host of this policy. */
export function host(): Host {
  const found = (globalThis as Slot)[SLOT];
  if (!found) {
    throw new Error("there is no gateway here: look-ups, tokens and settings work in a policy, and in tests with `decide` of @tidegate/policy/testing");
  }
  return found;
}

/** Sets the host and returns the previous one. */
export function setHost(next: Host | undefined): Host | undefined {
  const slot = globalThis as Slot;
  const last = slot[SLOT];
  slot[SLOT] = next;
  return last;
}

/** The error value of a failed host call: the bindings throw it directly or as `payload`. */
export function payload(error: unknown): unknown {
  return typeof error === "object" && error !== null && "payload" in error ? error.payload : error;
}
