import { decodeTime, isValid, ulid } from "ulid";
import { allow, cookie, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const session = cookie(request, "session") ?? "";
  if (!isValid(session)) return reject(400, "Bad Request", "not a session id");
  if (decodeTime(session) < Date.now() - 3_600_000) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session, headers: { "x-trace": ulid() } });
};
