import { createServerClient, parseCookieHeader } from "@supabase/ssr";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const client = createServerClient("https://abc.supabase.example", "the public key", {
    cookies: {
      getAll: () => parseCookieHeader(request.headers.get("cookie") ?? "").map(({ name, value = "" }) => ({ name, value })),
      setAll() {},
    },
    realtime: { transport: class {} as never },
  });
  const { data, error } = await client.auth.getClaims(undefined, { keys: JSON.parse(settings.get("KEYS")!) });
  if (!data) return reject(401, "Unauthorized", String(error ?? "no session"));
  return allow({ subject: data.claims.sub });
};
