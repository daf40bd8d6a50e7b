import { handle } from "@upstash/realtime";
import { createServerClient } from "@supabase/ssr";
import { cookies } from "next/headers";

async function createClient() {
  const cookieStore = await cookies();
  return createServerClient(process.env.NEXT_PUBLIC_SUPABASE_URL!, process.env.NEXT_PUBLIC_SUPABASE_ANON_KEY!, {
    cookies: {
      getAll: () => cookieStore.getAll(),
      setAll: (all) => all.forEach(({ name, value, options }) => cookieStore.set(name, value, options)),
    },
  });
}

export const GET = handle({
  middleware: async ({ channels }) => {
    const supabase = await createClient();
    const { data } = await supabase.auth.getClaims(undefined, { keys: JSON.parse(process.env.SUPABASE_KEYS!) });
    if (!data) return new Response("Unauthorized", { status: 401 });
    if (channels.some((channel) => channel !== data.claims.sub)) return new Response("Forbidden", { status: 403 });
  },
});
