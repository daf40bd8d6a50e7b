import { createClient } from "@vercel/edge-config";
import { handle } from "@upstash/realtime";

const config = createClient(process.env.EDGE_CONFIG);

export const GET = handle({
  middleware: async ({ channels }) => {
    try {
      const closed = (await config.get<string[]>("closed-channels")) ?? [];
      if (channels.some((channel) => closed.includes(channel))) return new Response("Closed", { status: 403 });
    } catch {
      return new Response("Try again", { status: 503 });
    }
  },
});
