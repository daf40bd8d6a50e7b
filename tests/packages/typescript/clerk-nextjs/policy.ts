import { auth } from "@clerk/nextjs/server";
import { handle } from "@upstash/realtime";

export const GET = handle({
  middleware: async () => {
    const { userId } = await auth();
    if (!userId) return new Response("Unauthorized", { status: 401 });
  },
});
