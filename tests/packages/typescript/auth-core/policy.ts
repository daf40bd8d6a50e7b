import { getToken } from "@auth/core/jwt";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const token = await getToken({ req: request, secret: settings.get("SECRET")! });
  return token?.sub ? allow({ subject: token.sub }) : reject(401, "Unauthorized", "no session");
};
