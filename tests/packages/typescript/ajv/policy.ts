import Ajv from "ajv";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

interface Session {
  id: string;
  role: string;
  expires: string;
}

const validate = new Ajv().compile<Session>({
  type: "object",
  properties: { id: { type: "string", minLength: 1 }, role: { enum: ["member", "admin"] }, expires: { type: "string" } },
  required: ["id", "role", "expires"],
});

export const middleware: Middleware = ({ request }) => {
  const record = lookup.json(`session:${cookie(request, "session")}`);
  if (!validate(record)) return reject(401, "Unauthorized", validate.errors?.[0]?.keyword);
  const session = record;
  const expiresAt = Date.parse(session.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.id, expiresAt });
};
