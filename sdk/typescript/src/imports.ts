// The host functions for policy authors: text instead of bytes, named errors, claims as objects.
import { host, payload, type Level } from "./host.ts";

/** The decoding of text, which an engine replaces by a faster one. */
export const decoding = {
  utf8: (bytes: Uint8Array): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes),
};

/** A failed look-up. */
export class LookupError extends Error {
  override readonly name = "LookupError";
  /** `denied`: the operator did not allow this key. `unavailable`: the store did not answer in time, or answered with an error. */
  readonly kind: "denied" | "unavailable";

  constructor(kind: "denied" | "unavailable", detail?: string) {
    super(detail ? `look-up ${kind}: ${detail}` : `look-up ${kind}`);
    this.kind = kind;
  }
}

/** A token that is invalid or could not be verified. */
export class TokenError extends Error {
  override readonly name = "TokenError";
  readonly kind: "malformed" | "untrusted" | "expired" | "claims" | "unavailable";

  constructor(kind: TokenError["kind"], detail?: string) {
    super(detail ? `token ${kind}: ${detail}` : `token ${kind}`);
    this.kind = kind;
  }
}

/** Read-only look-ups in the gateway's store, for keys with a prefix that the operator allowed. */
export const lookup = {
  /** The string at `key` as text. */
  get(key: string): string | undefined {
    return text(this.bytes(key));
  },
  /** The string at `key` decoded from JSON, of a type that is not checked; `undefined` if there is none, or if it is not JSON. */
  json<Value = unknown>(key: string): Value | undefined {
    const found = this.get(key);
    try {
      return found === undefined ? undefined : (JSON.parse(found) as Value);
    } catch {
      return undefined;
    }
  },
  /** The string at `key` as bytes. */
  bytes(key: string): Uint8Array | undefined {
    return lookUp(() => host().lookup.get(key)) ?? undefined;
  },
  /** A field of the hash at `key` as text. */
  hashGet(key: string, field: string): string | undefined {
    return text(lookUp(() => host().lookup.hashGet(key, field)) ?? undefined);
  },
  /** Whether the set at `key` contains `member`. */
  setContains(key: string, member: string): boolean {
    return lookUp(() => host().lookup.setContains(key, member));
  },
};

/** JSON Web Tokens, verified by the gateway against the operator's profiles. */
export const tokens = {
  /** Verifies a token with `profile`, or with the profile of its issuer, and returns its claims. Throws a `TokenError`. */
  verify<Claims = Record<string, unknown>>(token: string, { profile }: { profile?: string } = {}): Claims {
    try {
      const claims = profile === undefined ? host().tokens.verify(token) : host().tokens.verifyWith(profile, token);
      return JSON.parse(claims) as Claims;
    } catch (error) {
      const [kind, detail] = variant(error);
      throw kind ? new TokenError(kind as TokenError["kind"], detail) : error;
    }
  },
};

/** The operator's `[policy.settings]`; `process.env` has the same values. */
export const settings = {
  get(name: string): string | undefined {
    return host().settings.get(name) ?? undefined;
  },
};

/** Context of the current decision. */
export const context = {
  /** The gateway's clock, in ms since 1970. */
  now: (): number => Number(host().context.now()),
  /** The id of this request, as in all log lines about it. */
  requestId: (): string => host().context.requestId(),
  /** The requested action: `stream` or `history`. */
  action: (): string => host().context.action(),
  /** Writes to the gateway's log, as `console` does. */
  log: (level: Level, message: string): void => host().context.log(level, message),
};

function lookUp<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    const [kind, detail] = variant(error);
    throw kind ? new LookupError(kind as LookupError["kind"], detail) : error;
  }
}

/** The case and the text of an error of the host; nothing for any other error. */
function variant(error: unknown): [string?, string?] {
  const value = payload(error);
  if (typeof value !== "object" || value === null || !("tag" in value)) return [];
  return [String(value.tag), "val" in value && typeof value.val === "string" ? value.val : undefined];
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes && decoding.utf8(bytes);
}
