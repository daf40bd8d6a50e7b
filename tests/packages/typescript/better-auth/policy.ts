import { getCookieCache } from "better-auth/cookies";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const session = await getCookieCache(request, { secret: settings.get("SECRET")!, isSecure: true });
  return session ? allow({ subject: session.user.id }) : reject(401, "Unauthorized", "no session");
};
