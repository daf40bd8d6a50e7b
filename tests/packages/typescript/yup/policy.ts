import { object, string, ValidationError, type InferType } from "yup";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

const Session = object({ id: string().required(), role: string().oneOf(["member", "admin"]).required(), expires: string().datetime().required() });

export const middleware: Middleware = ({ request }) => {
  const record = lookup.json(`session:${cookie(request, "session")}`);
  let session: InferType<typeof Session>;
  try {
    session = Session.validateSync(record ?? {}, { strict: true });
  } catch (error) {
    if (!(error instanceof ValidationError)) throw error;
    return reject(401, "Unauthorized", error.path);
  }
  const expiresAt = Date.parse(session.expires);
  if (expiresAt <= Date.now()) return reject(401, "Unauthorized", "expired");
  return allow({ subject: session.id, expiresAt });
};
