import { v7, validate, version } from "uuid";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const session = cookie(request, "session") ?? "";
  if (!validate(session) || version(session) !== 4) return reject(400, "Bad Request", "not a session id");
  const user = lookup.get(`session:${session}`);
  if (!user) return reject(401, "Unauthorized", "unknown session");
  return allow({ subject: user, headers: { "x-trace": v7() } });
};
