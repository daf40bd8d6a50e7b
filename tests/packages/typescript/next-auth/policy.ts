import { handle } from "@upstash/realtime";
import { getToken } from "next-auth/jwt";
import type { NextRequest } from "next/server";

const stream = handle({});

export async function GET(req: NextRequest) {
  const token = await getToken({ req, secret: process.env.NEXTAUTH_SECRET });
  if (!token) return Response.json({ error: "sign in" }, { status: 401 });
  const channels = req.nextUrl.searchParams.getAll("channel");
  if (channels.some((channel) => channel !== token.sub)) return Response.json({ error: "not yours" }, { status: 403 });
  return stream(req);
}
