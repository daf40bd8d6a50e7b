import { InvalidTokenError, jwtDecode } from "jwt-decode";
import { allow, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  try {
    const { sub, exp = 0 } = jwtDecode(request.headers.get("x-verified-token") ?? "");
    return exp * 1000 > Date.now() ? allow({ subject: sub, expiresAt: exp * 1000 }) : reject(401, "Unauthorized", "expired");
  } catch (error) {
    if (!(error instanceof InvalidTokenError)) throw error;
    return reject(401, "Unauthorized", "malformed");
  }
};
