import { verifyToken } from "@clerk/backend";
import { allow, cookie, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const token = cookie(request, "__session");
  if (!token) return reject(401, "Unauthorized", "no session");
  try {
    const claims = await verifyToken(token, { jwtKey: settings.get("CLERK_JWT_KEY"), authorizedParties: ["https://app.example"] });
    return allow({ subject: claims.sub });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
