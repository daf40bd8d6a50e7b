// What the gateway gives a policy, as JavaScript sees wit/policy.wit.

/** A header as the interface carries it: a name in lower case, a value as bytes. */
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

/** How much a line of the log matters. */
export type Level = "debug" | "info" | "warn" | "error";

// In the global registry of symbols, because an app's copy of this package and the one that its component was built with may be two.
const SLOT = Symbol.for("tidegate.policy.host");

type Slot = { [SLOT]?: Host };

/** The host of this policy. */
export function host(): Host {
  const found = (globalThis as Slot)[SLOT];
  if (!found) {
    throw new Error("there is no gateway here: look-ups, tokens and settings work in a policy, and in tests by `decide` of @tidegate/policy/testing");
  }
  return found;
}

/** Puts a host in place and gives back the one that was there. */
export function setHost(next: Host | undefined): Host | undefined {
  const slot = globalThis as Slot;
  const last = slot[SLOT];
  slot[SLOT] = next;
  return last;
}

/** What a failed call of an interface carries, wherever the bindings put it. */
export function payload(error: unknown): unknown {
  return typeof error === "object" && error !== null && "payload" in error ? error.payload : error;
}
