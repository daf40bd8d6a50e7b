// A Tidegate policy with sessions, roles and teams.
import { allow, cookie, lookup, reason, reject, type Middleware } from "@tidegate/policy";

interface User {
  id: string;
  isAdmin: boolean;
}

/** Checks the session first. Then the first channel that the user may not read determines the rejection. */
export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return reject(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return reject(401, "Unauthorized", "unknown session");

  for (const channel of channels) {
    const rejection = check(user, channel);
    if (rejection) return rejection;
  }
  reason(`${user.id}: ${channels.length} channels`);
  return allow({ subject: user.id });
};

/** Parses a session such as `{"id":"alice","role":"member"}`. Roles other than `admin` are ignored. */
function userOf(record: unknown): User | undefined {
  const { id, role } = (record ?? {}) as { id?: unknown; role?: unknown };
  return typeof id === "string" && id !== "" ? { id, isAdmin: role === "admin" } : undefined;
}

/** Returns the rejection if the user may not read the channel. */
function check({ id, isAdmin }: User, channel: string): Response | undefined {
  if (channel === "default") return undefined;
  if (channel.startsWith("admin-")) {
    return isAdmin ? undefined : reject(403, "Admin access required", `${id} is not an admin`);
  }
  if (channel.startsWith("team-")) {
    const team = channel.slice("team-".length);
    if (lookup.setContains(`team:${team}:members`, id)) return undefined;
    return reject(403, "Not a team member", `${id} is not in team ${team}`);
  }
  if (channel === id || channel.startsWith(`${id}-`)) return undefined;
  return reject(403, "You can only access your own channels", `${channel} is not a channel of ${id}`);
}
