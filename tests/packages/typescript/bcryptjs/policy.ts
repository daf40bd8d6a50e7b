import { compareSync } from "bcryptjs";
import { allow, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const hash = lookup.get("key:alice") ?? "";
  const key = request.headers.get("x-api-key") ?? "";
  return compareSync(key, hash) ? allow({ subject: "alice" }) : reject(401, "Unauthorized", "another key");
};
