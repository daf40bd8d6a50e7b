// The interfaces of a policy, as a policy's author wants them: text where bytes are text, errors by name, claims as objects.
import { host, payload, type Level } from "./host.ts";

/** Why a look-up gave no answer. */
export class LookupError extends Error {
  override readonly name = "LookupError";
  /** `denied`: the operator allowed no such key. `unavailable`: the store did not answer in time, or with an error. */
  readonly kind: "denied" | "unavailable";

  constructor(kind: "denied" | "unavailable", detail?: string) {
    super(detail ? `look-up ${kind}: ${detail}` : `look-up ${kind}`);
    this.kind = kind;
  }
}

/** Why a token does not hold. */
export class TokenError extends Error {
  override readonly name = "TokenError";
  readonly kind: "malformed" | "untrusted" | "expired" | "claims" | "unavailable";

  constructor(kind: TokenError["kind"], detail?: string) {
    super(detail ? `token ${kind}: ${detail}` : `token ${kind}`);
    this.kind = kind;
  }
}

/** Look-ups in the store that the events come from, read only, within the prefixes that the operator allowed. */
export const lookup = {
  /** The string at `key` as text. */
  get(key: string): string | undefined {
    return text(this.bytes(key));
  },
  /** What the string at `key` says as JSON; nothing if there is none, or if it is no JSON. */
  json(key: string): unknown {
    const found = this.get(key);
    try {
      return found === undefined ? undefined : JSON.parse(found);
    } catch {
      return undefined;
    }
  },
  /** The string at `key` as it is. */
  bytes(key: string): Uint8Array | undefined {
    return asking(() => host().lookup.get(key)) ?? undefined;
  },
  /** A field of the hash at `key` as text. */
  hashGet(key: string, field: string): string | undefined {
    return text(asking(() => host().lookup.hashGet(key, field)) ?? undefined);
  },
  /** Whether the set at `key` holds `member`. */
  setContains(key: string, member: string): boolean {
    return asking(() => host().lookup.setContains(key, member));
  },
};

/** JSON Web Tokens, checked by the gateway against the operator's profiles. */
export const tokens = {
  /** The claims of a token that holds: for `profile`, or for the profile of its issuer. Throws a `TokenError`. */
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

/** The operator's `[policy.settings]`; `process.env` reads the same. */
export const settings = {
  get(name: string): string | undefined {
    return host().settings.get(name) ?? undefined;
  },
};

/** About the decision that is being made. */
export const context = {
  /** The gateway's clock, ms since 1970. */
  now: (): number => Number(host().context.now()),
  /** The same in every log line about this request. */
  requestId: (): string => host().context.requestId(),
  /** `stream` or `history`. */
  action: (): string => host().context.action(),
  /** To the gateway's log; `console` writes there too. */
  log: (level: Level, message: string): void => host().context.log(level, message),
};

function asking<T>(ask: () => T): T {
  try {
    return ask();
  } catch (error) {
    const [kind, detail] = variant(error);
    throw kind ? new LookupError(kind as LookupError["kind"], detail) : error;
  }
}

/** The case and the text of an error that the host answered with; nothing for any other. */
function variant(error: unknown): [string?, string?] {
  const value = payload(error);
  if (typeof value !== "object" || value === null || !("tag" in value)) return [];
  return [String(value.tag), "val" in value && typeof value.val === "string" ? value.val : undefined];
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes && new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
