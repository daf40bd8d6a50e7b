import { parse, serialize } from "cookie";
import { allow, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const { session } = parse(request.headers.get("cookie") ?? "");
  const user = session && lookup.get(`session:${session}`);
  if (user) return allow({ subject: user });
  const response = reject(401, "Unauthorized", "no session");
  response.headers.set("set-cookie", serialize("session", "", { maxAge: 0, path: "/", httpOnly: true }));
  return response;
};
