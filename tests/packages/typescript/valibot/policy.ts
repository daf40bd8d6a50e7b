import * as v from "valibot";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

const Session = v.object({ id: v.pipe(v.string(), v.minLength(1)), role: v.picklist(["member", "admin"]), expires: v.pipe(v.string(), v.isoTimestamp()) });

export const middleware: Middleware = ({ request }) => {
  const record = lookup.json(`session:${cookie(request, "session")}`);
  const parsed = v.safeParse(Session, record);
  if (!parsed.success) return reject(401, "Unauthorized", v.getDotPath(parsed.issues[0]) ?? "no session");
  const session = parsed.output;
  const expiresAt = Date.parse(session.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.id, expiresAt });
};
