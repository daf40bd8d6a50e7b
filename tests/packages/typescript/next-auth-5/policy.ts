import { handle } from "@upstash/realtime";
import { NextResponse } from "next/server";
import { auth } from "./auth";

const stream = handle({
  middleware: async ({ channels }) => {
    const session = await auth();
    if (!session?.user) return new Response("Unauthorized", { status: 401 });
    if (channels.some((channel) => channel !== session.user?.name)) return new Response("Forbidden", { status: 403 });
  },
});

export const GET = auth(async (req) => {
  if (!req.auth) return NextResponse.json({ error: "sign in" }, { status: 401 });
  return stream(req);
});
