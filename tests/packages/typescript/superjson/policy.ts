import superjson from "superjson";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

interface Session {
  user: string;
  expires: Date;
  channels: Set<string>;
}

export const middleware: Middleware = ({ request, channels }) => {
  const stored = lookup.get(`session:${cookie(request, "session")}`);
  if (!stored) return reject(401, "Unauthorized");
  const { user, expires, channels: allowed } = superjson.parse<Session>(stored);
  const channel = channels.find((name) => !allowed.has(name));
  return channel ? reject(403, `not ${channel}`) : allow({ subject: user, expiresAt: expires });
};
