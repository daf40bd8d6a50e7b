// Verifies a cookie of `cookie-signature` with Web Crypto: `s:<value>.<HMAC-SHA-256 of the value, in base64 without padding>`.
import { allow, cookie, lookup, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const id = await unsign(decodeURIComponent(cookie(request, "connect.sid") ?? ""), settings.get("SECRET")!);
  const user = id && lookup.json<{ user?: string }>(`sess:${id}`)?.user;
  return user ? allow({ subject: user }) : reject(401, "Unauthorized", "no session");
};

async function unsign(cookie: string, secret: string): Promise<string | undefined> {
  const [, value, signature] = /^s:(.*)\.([^.]*)$/.exec(cookie) ?? [];
  if (value === undefined) return undefined;
  const text = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", text.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const bytes = Uint8Array.from(atob(signature), (character) => character.charCodeAt(0));
  return (await crypto.subtle.verify("HMAC", key, bytes, text.encode(value))) ? value : undefined;
}
