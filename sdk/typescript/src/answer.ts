// Options of the answer, and a helper for rejections.
import { host } from "./host.ts";

/** The reason for the decision, for the decision log. It is never sent to the client. */
export function reason(text: string): void {
  host().answer.reason(text);
}

/** Events older than this time are not replayed to the client. */
export function replaySince(time: Date | number): void {
  host().answer.replaySince(BigInt(Math.trunc(Number(time))));
}

/**
 * Lets the gateway reuse the answer for the given time, for requests with the same URL, client address and values of the headers in
 * `vary`. Name the headers that carry credentials there. With `anyAddress` the address is ignored.
 */
export function cacheFor(seconds: number, { vary = [], anyAddress = false }: { vary?: string[]; anyAddress?: boolean } = {}): void {
  host().answer.cacheFor(seconds, vary.map((name) => name.toLowerCase()));
  if (anyAddress) host().answer.cacheAnyAddress();
}

/** A plain-text response that rejects the client; `reason` is for the decision log. */
export function reject(status: number, text: string, reason?: string): Response {
  if (reason !== undefined) host().answer.reason(reason);
  return new Response(text, { status, headers: { "content-type": "text/plain" } });
}
