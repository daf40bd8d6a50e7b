// A Tidegate policy that allows every channel to clients with a session.
import { allow, cookie, lookup, reason, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return reject(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return reject(401, "Unauthorized", "unknown session");
  reason(`${user}: ${channels.length} channels`);
  return allow({ subject: user });
};

/** Parses the user's id in a session such as `{"id":"alice"}`. */
function userOf(record: unknown): string | undefined {
  const id = (record as { id?: unknown } | null | undefined)?.id;
  return typeof id === "string" && id !== "" ? id : undefined;
}
