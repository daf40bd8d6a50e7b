import ms from "ms";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const age = Number(request.headers.get("x-age"));
  const max = ms(settings.get("MAX_AGE") as ms.StringValue);
  return age > max ? reject(401, "Unauthorized", ms(age, { long: true })) : allow({ expiresAt: Date.now() + max - age });
};
