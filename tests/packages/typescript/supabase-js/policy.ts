import { createClient } from "@supabase/supabase-js";
import { allow, reject, type Middleware } from "@tidegate/policy";

const supabase = createClient("https://abc.supabase.example", "anon", { auth: { persistSession: false, autoRefreshToken: false } });

export const middleware: Middleware = async ({ request }) => {
  const token = request.headers.get("authorization")?.replace(/^Bearer /, "");
  if (!token) return reject(401, "Unauthorized");
  const { data, error } = await supabase.auth.getClaims(token, { keys: JSON.parse(process.env.SUPABASE_KEYS!) });
  if (error || !data) return reject(401, "Unauthorized", error?.message);
  return allow({ subject: data.claims.sub, expiresAt: data.claims.exp * 1000 });
};
