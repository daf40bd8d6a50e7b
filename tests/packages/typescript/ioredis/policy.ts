import Redis from "ioredis";

const redis = new Redis(process.env.REDIS_URL!);

export const middleware = async ({ request }: { request: Request }) => {
  if (!(await redis.get(`session:${request.headers.get("x-session")}`))) return new Response("Unauthorized", { status: 401 });
};
