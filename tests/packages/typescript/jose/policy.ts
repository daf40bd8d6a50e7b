import { createLocalJWKSet, jwtVerify } from "jose";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  const secret = new TextEncoder().encode(settings.get("SECRET"));
  const keys = createLocalJWKSet(JSON.parse(settings.get("JWKS")!));
  const options = { audience: "app", requiredClaims: ["exp"] };
  try {
    const { payload } = await jwtVerify(token, (header, jws) => (header.alg?.startsWith("HS") ? secret : keys(header, jws)), options);
    return allow({ subject: payload.sub, expiresAt: payload.exp! * 1000 });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
