// A Tidegate policy with users: everybody reads the channels that begin with their own id.
import { allow, cookie, lookup, reason, refuse, type Middleware } from "@tidegate/policy";

/** The session comes first, whatever the channels are; then the first channel that fails decides. */
export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return refuse(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return refuse(401, "Unauthorized", "unknown session");

  for (const channel of channels) {
    if (channel === "default" || channel === user || channel.startsWith(`${user}-`)) continue;
    return refuse(403, "You can only access your own channels", `${channel} is not a channel of ${user}`);
  }
  reason(`${user}: ${channels.length} channels`);
  return allow({ subject: user });
};

/** The user's id in the record of a session, if it is one: `{"id":"alice"}`. */
function userOf(record: unknown): string | undefined {
  const id = (record as { id?: unknown } | null | undefined)?.id;
  return typeof id === "string" && id !== "" ? id : undefined;
}
