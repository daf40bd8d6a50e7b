import cookieParser from "cookie-parser";
import { allow, lookup, reject, settings, type Middleware } from "@tidegate/policy";

interface Parsed {
  headers: { cookie?: string };
  signedCookies?: Record<string, string | false>;
}

export const middleware: Middleware = ({ request }) => {
  const req: Parsed = { headers: { cookie: request.headers.get("cookie") ?? undefined } };
  cookieParser(settings.get("SECRET"))(req as never, {} as never, () => {});
  const id = req.signedCookies?.["connect.sid"];
  const user = id && lookup.json<{ user?: string }>(`sess:${id}`)?.user;
  return user ? allow({ subject: user }) : reject(401, "Unauthorized", "no session");
};
