import { createClerkClient, verifyToken } from "@clerk/backend";
import { handle } from "@upstash/realtime";
import type { NextRequest } from "next/server";

const stream = handle({});
const clerk = () => createClerkClient({ secretKey: process.env.CLERK_SECRET_KEY, publishableKey: process.env.CLERK_PUBLISHABLE_KEY, jwtKey: process.env.CLERK_JWT_KEY });

export async function GET(req: NextRequest) {
  const token = req.cookies.get("__session")?.value;
  if (token) {
    try {
      await verifyToken(token, { jwtKey: process.env.CLERK_JWT_KEY, authorizedParties: ["https://app.example"] });
    } catch {
      return new Response("Unauthorized", { status: 401 });
    }
    return stream(req);
  }
  const state = await clerk().authenticateRequest(req, { authorizedParties: ["https://app.example"] });
  const auth = state.toAuth();
  if (!auth?.userId) return new Response("Unauthorized", { status: 401 });
  if (req.nextUrl.searchParams.getAll("channel").some((channel) => channel !== auth.userId)) return new Response("Forbidden", { status: 403 });
  return stream(req);
}
