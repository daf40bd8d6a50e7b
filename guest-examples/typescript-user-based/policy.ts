// A Tidegate policy that allows users their own channels.
import { allow, cookie, lookup, reason, reject, type Middleware } from "@tidegate/policy";

/** Checks the session first. Then the first channel that the user may not read determines the rejection. */
export const middleware: Middleware = ({ request, channels }) => {
  const session = cookie(request, "session");
  if (!session) return reject(401, "Unauthorized", "no session");
  const user = userOf(lookup.json(`session:${session}`));
  if (!user) return reject(401, "Unauthorized", "unknown session");

  for (const channel of channels) {
    if (channel === "default" || channel === user || channel.startsWith(`${user}-`)) continue;
    return reject(403, "You can only access your own channels", `${channel} is not a channel of ${user}`);
  }
  reason(`${user}: ${channels.length} channels`);
  return allow({ subject: user });
};

/** Parses the user's id in a session such as `{"id":"alice"}`. */
function userOf(record: unknown): string | undefined {
  const id = (record as { id?: unknown } | null | undefined)?.id;
  return typeof id === "string" && id !== "" ? id : undefined;
}
