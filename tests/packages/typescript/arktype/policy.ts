import { type } from "arktype";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

const Session = type({ id: "string >= 1", role: "'member' | 'admin'", expires: "string.date.iso" });

export const middleware: Middleware = ({ request }) => {
  const record = lookup.json(`session:${cookie(request, "session")}`);
  const session = Session(record);
  if (session instanceof type.errors) return reject(401, "Unauthorized", session[0]?.path.join("."));
  const expiresAt = Date.parse(session.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.id, expiresAt });
};
