import { z } from "zod";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

const Session = z.object({ id: z.string().min(1), role: z.enum(["member", "admin"]), expires: z.iso.datetime() });

export const middleware: Middleware = ({ request }) => {
  const session = Session.safeParse(lookup.json(`session:${cookie(request, "session")}`));
  if (!session.success) return reject(401, "Unauthorized", session.error.issues[0].path.join("."));
  const expiresAt = Date.parse(session.data.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.data.id, expiresAt });
};
