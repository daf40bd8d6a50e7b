import dayjs from "dayjs";
import relativeTime from "dayjs/plugin/relativeTime.js";

dayjs.extend(relativeTime);
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const created = lookup.get(`session:${cookie(request, "session")}`);
  if (!created) return reject(401, "Unauthorized", "no session");
  const start = dayjs(created);
  const expiresAt = start.add(1, "day");
  if (expiresAt.isBefore(dayjs())) return reject(401, "Unauthorized", expiresAt.toNow(true));
  return allow({ expiresAt: expiresAt.toDate(), headers: { "x-day": start.format("dddd, D MMMM YYYY") } });
};
