import { jwtVerify } from "jose";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  const secret = new TextEncoder().encode(settings.get("SECRET"));
  try {
    const { payload } = await jwtVerify(token, secret, { algorithms: ["HS256"], audience: "app", requiredClaims: ["exp"] });
    return allow({ subject: payload.sub, expiresAt: payload.exp! * 1000 });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
