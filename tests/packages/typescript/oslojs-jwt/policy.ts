import { hmac } from "@oslojs/crypto/hmac";
import { sha256, SHA256 } from "@oslojs/crypto/sha2";
import { constantTimeEqual } from "@oslojs/crypto/subtle";
import { encodeHexLowerCase } from "@oslojs/encoding";
import { JWSRegisteredHeaders, JWTRegisteredClaims, parseJWT } from "@oslojs/jwt";
import { allow, lookup, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
  try {
    const [header, payload, signature, message] = parseJWT(token);
    if (new JWSRegisteredHeaders(header).algorithm() !== "HS256") return reject(401, "Unauthorized", "algorithm");
    const expected = hmac(SHA256, new TextEncoder().encode(settings.get("SECRET")), message);
    if (!constantTimeEqual(signature, expected)) return reject(401, "Unauthorized", "signature");
    const claims = new JWTRegisteredClaims(payload);
    if (!claims.verifyExpiration()) return reject(401, "Unauthorized", "expired");
    const id = encodeHexLowerCase(sha256(new TextEncoder().encode(claims.subject())));
    return allow({ subject: lookup.get(`user:${id}`) ?? claims.subject() });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
