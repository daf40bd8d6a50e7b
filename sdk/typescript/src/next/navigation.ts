// `next/navigation` for route handlers: errors that become responses.

/** A response that an error stands for, as a status and a location. */
interface Digest {
  digest: string;
}

/** How a browser's history changes; it does not matter for a response. */
export const RedirectType = { push: "push", replace: "replace" } as const;

/** Answers with a redirect of the status 307. The URL may be relative. */
export function redirect(url: string, type: "push" | "replace" = "replace"): never {
  throw withDigest("NEXT_REDIRECT", `NEXT_REDIRECT;${type};${url};307;`);
}

/** Answers with a redirect of the status 308. */
export function permanentRedirect(url: string, type: "push" | "replace" = "replace"): never {
  throw withDigest("NEXT_REDIRECT", `NEXT_REDIRECT;${type};${url};308;`);
}

/** Answers with 404. */
export function notFound(): never {
  throw fallback(404);
}

/** Answers with 403. */
export function forbidden(): never {
  throw fallback(403);
}

/** Answers with 401. */
export function unauthorized(): never {
  throw fallback(401);
}

/** Throws the errors of this module again, for code that catches all errors. */
export function unstable_rethrow(error: unknown): void {
  if (responseOf(error)) throw error;
}

function fallback(status: number): Error & Digest {
  return withDigest(`NEXT_HTTP_ERROR_FALLBACK;${status}`, `NEXT_HTTP_ERROR_FALLBACK;${status}`);
}

function withDigest(message: string, digest: string): Error & Digest {
  return Object.assign(new Error(message), { digest });
}

/** The response that an error of Next.js stands for. */
export function responseOf(error: unknown): Response | undefined {
  const digest = typeof error === "object" && error !== null ? (error as Partial<Digest>).digest : undefined;
  if (typeof digest !== "string") return undefined;
  const [kind, ...parts] = digest.split(";");
  if (kind === "NEXT_HTTP_ERROR_FALLBACK" && /^40[134]$/.test(parts[0] ?? "")) return new Response(null, { status: Number(parts[0]) });
  const status = Number(parts.at(-2));
  if (kind !== "NEXT_REDIRECT" || (status !== 307 && status !== 308 && status !== 303)) return undefined;
  return new Response(null, { status, headers: { location: parts.slice(1, -2).join(";") } });
}
