import { addDays, differenceInDays, formatDistanceStrict, format, isBefore, parseISO } from "date-fns";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const created = lookup.get(`session:${cookie(request, "session")}`);
  if (!created) return reject(401, "Unauthorized", "no session");
  const start = parseISO(created);
  const expiresAt = addDays(start, 1);
  if (isBefore(expiresAt, new Date())) return reject(401, "Unauthorized", differenceInDays(new Date(), start) === 8 ? formatDistanceStrict(new Date(), expiresAt) : "wrong");
  return allow({ expiresAt, headers: { "x-day": format(start, "EEEE, d MMMM yyyy") } });
};
