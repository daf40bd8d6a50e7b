import { DateTime } from "luxon";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const created = lookup.get(`session:${cookie(request, "session")}`);
  if (!created) return reject(401, "Unauthorized", "no session");
  const start = DateTime.fromISO(created, { zone: "utc" });
  const expiresAt = start.plus({ days: 1 });
  const age = DateTime.utc().diff(expiresAt, "days").days;
  if (age > 0) return reject(401, "Unauthorized", `${age} days`);
  return allow({ expiresAt: expiresAt.toJSDate(), headers: { "x-day": start.toFormat("EEEE, d MMMM yyyy") } });
};
