import { handle } from "@upstash/realtime";
import { getIronSession } from "iron-session";
import { cookies } from "next/headers";

export const GET = handle({
  middleware: async ({ channels }) => {
    const session = await getIronSession<{ user?: string }>(await cookies(), { password: process.env.SESSION_PASSWORD!, cookieName: "session", ttl: 3600 });
    if (!session.user) return new Response("Unauthorized", { status: 401 });
    if (channels.some((channel) => channel !== session.user)) return new Response("Forbidden", { status: 403 });
  },
});
