import { allow, reject, settings, type Middleware } from "@tidegate/policy";
import { parseCookies } from "oslo/cookie";
import { sha256 } from "oslo/crypto";
import { base64url, encodeHex } from "oslo/encoding";
import { validateJWT, type JWTAlgorithm } from "oslo/jwt";

export const middleware: Middleware = async ({ request }) => {
  const cookies = parseCookies(request.headers.get("cookie") ?? "");
  const alg = (request.headers.get("x-alg") ?? "HS256") as JWTAlgorithm;
  try {
    const { subject } = await validateJWT(alg, new TextEncoder().encode(settings.get("SECRET")), cookies.get("token") ?? "");
    const id = encodeHex(await sha256(base64url.decode("AQID")));
    return allow({ subject: subject ?? undefined, headers: { "x-id": id } });
  } catch {
    return reject(401, "Unauthorized");
  }
};
