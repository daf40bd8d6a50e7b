// A Tidegate policy with sessions: whoever has one reads every channel.
import { allow, cookie, lookup, reason, refuse, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return refuse(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return refuse(401, "Unauthorized", "unknown session");
  reason(`${user}: ${channels.length} channels`);
  return allow({ subject: user });
};

/** The user's id in the record of a session, if it is one: `{"id":"alice"}`. */
function userOf(record: unknown): string | undefined {
  const id = (record as { id?: unknown } | null | undefined)?.id;
  return typeof id === "string" && id !== "" ? id : undefined;
}
