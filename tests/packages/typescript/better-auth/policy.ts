import { handle } from "@upstash/realtime";
import { getCookieCache } from "better-auth/cookies";

export const GET = handle({
  middleware: async ({ request, channels }) => {
    const session = await getCookieCache(request, { secret: process.env.BETTER_AUTH_SECRET });
    if (!session) return new Response("Unauthorized", { status: 401 });
    if (channels.some((channel) => channel !== session.user.id)) return new Response("Forbidden", { status: 403 });
  },
});
