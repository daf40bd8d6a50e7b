import { decrypt } from "paseto-ts/v4";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  try {
    const { payload } = decrypt(settings.get("KEY")!, token);
    return payload.aud === "app" ? allow({ subject: String(payload.sub) }) : reject(401, "Unauthorized", "audience");
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
