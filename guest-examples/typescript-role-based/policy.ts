// A Tidegate policy with sessions, roles and teams.
import { allow, cookie, lookup, reason, refuse, type Middleware } from "@tidegate/policy";

interface User {
  id: string;
  isAdmin: boolean;
}

/** The session comes first, whatever the channels are; then the first channel that fails decides. */
export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return refuse(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return refuse(401, "Unauthorized", "unknown session");

  for (const channel of channels) {
    const refusal = check(user, channel);
    if (refusal) return refusal;
  }
  reason(`${user.id}: ${channels.length} channels`);
  return allow({ subject: user.id });
};

/** The user in the record of a session, if it is one: `{"id":"alice","role":"member"}`. Any role but `admin` gives nothing. */
function userOf(record: unknown): User | undefined {
  const { id, role } = (record ?? {}) as { id?: unknown; role?: unknown };
  return typeof id === "string" && id !== "" ? { id, isAdmin: role === "admin" } : undefined;
}

/** What keeps the user from a channel, if anything does. */
function check({ id, isAdmin }: User, channel: string): Response | undefined {
  if (channel === "default") return undefined;
  if (channel.startsWith("admin-")) {
    return isAdmin ? undefined : refuse(403, "Admin access required", `${id} is not an admin`);
  }
  if (channel.startsWith("team-")) {
    const team = channel.slice("team-".length);
    if (lookup.setContains(`team:${team}:members`, id)) return undefined;
    return refuse(403, "Not a team member", `${id} is not in team ${team}`);
  }
  if (channel === id || channel.startsWith(`${id}-`)) return undefined;
  return refuse(403, "You can only access your own channels", `${channel} is not a channel of ${id}`);
}
