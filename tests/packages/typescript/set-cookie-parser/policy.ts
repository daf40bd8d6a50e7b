import { parse, splitCookiesString } from "set-cookie-parser";
import { allow, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const set = parse(splitCookiesString(request.headers.get("x-set-cookie") ?? ""));
  const session = set.find(({ name }) => name === "session");
  if (!session?.expires || session.expires.getTime() <= Date.now()) return reject(401, "Unauthorized");
  return allow({ subject: session.value, expiresAt: session.expires });
};
