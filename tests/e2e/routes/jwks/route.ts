import { handle } from "@upstash/realtime";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const keys = createRemoteJWKSet(new URL(process.env.JWKS_URL!), { timeoutDuration: 5000 });

export const GET = handle({
  middleware: async ({ request, channels }) => {
    const token = request.headers.get("authorization")?.replace("Bearer ", "") ?? "";
    try {
      const { payload } = await jwtVerify(token, keys, { issuer: "https://app.example", audience: "realtime" });
      if (channels.some((channel) => channel !== payload.sub)) return new Response("Forbidden", { status: 403 });
    } catch (error) {
      if (error instanceof errors.JWKSTimeout) return new Response("Try again", { status: 503 });
      return new Response("Unauthorized", { status: 401 });
    }
  },
});
