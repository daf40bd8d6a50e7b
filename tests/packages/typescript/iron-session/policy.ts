import { unsealData } from "iron-session";
import { allow, cookie, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const seal = cookie(request, "session");
  if (!seal) return reject(401, "Unauthorized", "no session");
  const { user } = await unsealData<{ user?: string }>(seal, { password: settings.get("SECRET")!, ttl: 3600 });
  return user ? allow({ subject: user }) : reject(401, "Unauthorized", "invalid session");
};
