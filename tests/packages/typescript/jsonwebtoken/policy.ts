import { handle } from "@upstash/realtime";
import jwt from "jsonwebtoken";

export const GET = handle({
  middleware: ({ request, channels }) => {
    const algorithm = (request.headers.get("x-alg") ?? "HS256") as jwt.Algorithm;
    const keys = JSON.parse(process.env.KEYS!);
    try {
      const claims = jwt.verify(request.headers.get("authorization")?.slice(7) ?? "", keys[algorithm], { algorithms: [algorithm], audience: "app" });
      if (channels.some((channel) => channel !== claims.sub)) return new Response("Forbidden", { status: 403 });
    } catch (error) {
      if (!(error instanceof jwt.JsonWebTokenError)) throw error;
      return new Response(error.message, { status: 401 });
    }
  },
});
