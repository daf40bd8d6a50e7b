import jwt from "jsonwebtoken";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  try {
    const claims = jwt.verify(token, settings.get("SECRET")!, { algorithms: ["HS256"], audience: "app" });
    return allow({ subject: String(claims.sub) });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
