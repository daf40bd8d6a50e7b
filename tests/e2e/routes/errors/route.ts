import { handle } from "@upstash/realtime";
import { userOf } from "./lib/session.ts";

export const GET = handle({
  middleware: async ({ request }) => {
    console.log("request", { path: new URL(request.url).pathname, ids: new Map([["a", new Set([1])]]), at: new Date(0) });
    const user = await userOf(request.headers.get("x-session"));
    if (!user) return new Response("Unauthorized", { status: 401 });
  },
});
