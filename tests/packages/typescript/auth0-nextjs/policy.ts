import { Auth0Client } from "@auth0/nextjs-auth0/server";
import { handle } from "@upstash/realtime";
import type { NextRequest } from "next/server";

const auth0 = new Auth0Client();
const stream = handle({});

export async function GET(request: NextRequest) {
  const session = await auth0.getSession(request);
  if (!session) return Response.json({ error: "sign in" }, { status: 401 });
  if (request.nextUrl.searchParams.getAll("channel").some((channel) => channel !== session.user.sub)) return new Response("Forbidden", { status: 403 });
  return stream(request);
}
