// What an answer says beside itself, and answers in short.
import { host } from "./host.ts";

/** Why it was decided so, for the decision log. Never sent to the client. */
export function reason(text: string): void {
  host().answer.reason(text);
}

/** Nothing older than this is replayed to the client. */
export function replaySince(time: Date | number): void {
  host().answer.replaySince(BigInt(Math.trunc(Number(time))));
}

/**
 * The answer may be given again for so many seconds without asking, to requests with the same URL whose headers named in `vary`
 * are the same too. Credentials belong in `vary`. With `anyAddress` also to clients of another address.
 */
export function cacheFor(seconds: number, { vary = [], anyAddress = false }: { vary?: string[]; anyAddress?: boolean } = {}): void {
  host().answer.cacheFor(seconds, vary.map((name) => name.toLowerCase()));
  if (anyAddress) host().answer.cacheAnyAddress();
}

/** A response of plain text that keeps the client out; `why` is for the decision log. */
export function refuse(status: number, text: string, why?: string): Response {
  if (why !== undefined) reason(why);
  return new Response(text, { status, headers: { "content-type": "text/plain" } });
}
