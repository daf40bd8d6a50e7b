import CryptoJS from "crypto-js";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const [user = "", tag = ""] = (request.headers.get("authorization")?.slice("Bearer ".length) ?? "").split(".");
  const expected = CryptoJS.HmacSHA256(user, settings.get("SECRET")!).toString(CryptoJS.enc.Hex);
  return tag === expected ? allow({ subject: user }) : reject(401, "Unauthorized");
};
