import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";
import { handle } from "@upstash/realtime";

const ratelimit = new Ratelimit({ redis: Redis.fromEnv({ retry: false }), limiter: Ratelimit.slidingWindow(10, "10 s"), analytics: false });

export const GET = handle({
  middleware: async ({ request }) => {
    try {
      const { success } = await ratelimit.limit(request.headers.get("x-forwarded-for") ?? "anonymous");
      if (!success) return new Response("Too Many Requests", { status: 429 });
    } catch {
      return new Response("Try again", { status: 503 });
    }
  },
});
