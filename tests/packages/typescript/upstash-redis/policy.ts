import { Redis } from "@upstash/redis";
import { handle } from "@upstash/realtime";

const redis = Redis.fromEnv({ retry: false });

export const GET = handle({
  middleware: async ({ request, channels }) => {
    const token = request.headers.get("authorization")?.replace("Bearer ", "");
    if (!token) return new Response("Unauthorized", { status: 401 });
    try {
      const user = await redis.get<{ id: string }>(`session:${token}`);
      if (!user || channels.some((channel) => channel !== user.id)) return new Response("Forbidden", { status: 403 });
    } catch {
      return new Response("Try again", { status: 503 });
    }
  },
});
