import { defineAbility, ForbiddenError, subject } from "@casl/ability";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request, channels }) => {
  const user = lookup.json(`session:${cookie(request, "session")}`) as { id: string; role: string } | undefined;
  if (!user) return reject(401, "Unauthorized");
  const ability = defineAbility((can, cannot) => {
    can("read", "Channel", { owner: user.id });
    if (user.role === "admin") can("read", "Channel");
    cannot("read", "Channel", { owner: "secret" }).because("secrets are private");
  });
  try {
    for (const name of channels) ForbiddenError.from(ability).throwUnlessCan("read", subject("Channel", { owner: name.split("-")[0] }));
    return allow({ subject: user.id });
  } catch (error) {
    return reject(403, (error as Error).message);
  }
};
