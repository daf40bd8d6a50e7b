// The host of a decision: the natives as src/host.ts describes them.
import type { Host } from "../../src/host.ts";

export const gateway: Host = {
  context: {
    now: () => BigInt(native.contextNow()),
    requestId: () => native.requestId(),
    action: () => native.action(),
    log: (level, line) => native.log(level, line),
  },
  answer: {
    reason: (text) => native.reason(String(text)),
    replaySince: (time) => native.replaySince(Number(time)),
    cacheFor: (seconds, vary) => native.cacheFor(seconds, vary),
    cacheAnyAddress: () => native.cacheAnyAddress(),
  },
  lookup: {
    get: (key) => native.lookup(key),
    hashGet: (key, field) => native.lookupHash(key, field),
    setContains: (key, member) => native.lookupSet(key, member),
  },
  tokens: {
    verify: (token) => native.verifyToken(token),
    verifyWith: (profile, token) => native.verifyToken(token, profile),
  },
  settings: { get: (name) => native.setting(name) },
};
