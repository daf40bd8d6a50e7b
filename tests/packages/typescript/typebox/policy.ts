import { Type } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

const Session = Type.Object({
  id: Type.String({ minLength: 1 }),
  role: Type.Union([Type.Literal("member"), Type.Literal("admin")]),
  expires: Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT" }),
});

export const middleware: Middleware = ({ request }) => {
  const record = lookup.json(`session:${cookie(request, "session")}`);
  if (!Value.Check(Session, record)) return reject(401, "Unauthorized", Value.Errors(Session, record).First()?.path);
  const session = record;
  const expiresAt = Date.parse(session.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.id, expiresAt });
};
