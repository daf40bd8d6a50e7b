import { unsign } from "cookie-signature";
import { allow, cookie, lookup, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const value = decodeURIComponent(cookie(request, "connect.sid") ?? "");
  const id = value.startsWith("s:") && unsign(value.slice(2), settings.get("SECRET")!);
  const user = id && lookup.json<{ user?: string }>(`sess:${id}`)?.user;
  return user ? allow({ subject: user }) : reject(401, "Unauthorized", "no session");
};
