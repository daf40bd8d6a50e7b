import { Hono } from "hono";
import { getCookie } from "hono/cookie";
import { HTTPException } from "hono/http-exception";
import { verify } from "hono/jwt";
import type { SignatureAlgorithm } from "hono/utils/jwt/jwa";
import { secureHeaders } from "hono/secure-headers";
import { handle } from "@upstash/realtime";

const app = new Hono();
const stream = handle({});

app.use(secureHeaders());
app.get("/api/realtime", async (c) => {
  const alg = (c.req.query("alg") ?? "HS256") as SignatureAlgorithm;
  const keys = JSON.parse(process.env.KEYS!);
  const token = getCookie(c, "token");
  if (!token) throw new HTTPException(401, { message: "Unauthorized" });
  try {
    const { sub } = await verify(token, keys[alg], alg);
    if (c.req.queries("channel")?.some((channel) => channel !== sub)) return c.json({ error: "not yours" }, 403);
  } catch {
    return c.text("Invalid token", 401);
  }
  return stream(c.req.raw);
});

export default app;
