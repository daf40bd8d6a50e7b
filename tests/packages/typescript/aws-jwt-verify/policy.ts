import { CognitoJwtVerifier } from "aws-jwt-verify";
import { allow, reject, type Middleware } from "@tidegate/policy";

const verifier = CognitoJwtVerifier.create({ userPoolId: "eu-west-1_abc", tokenUse: "access", clientId: "client" });

export const middleware: Middleware = async ({ request }) => {
  verifier.cacheJwks(JSON.parse(process.env.COGNITO_KEYS!));
  try {
    const { sub, exp } = await verifier.verify(request.headers.get("authorization")?.replace("Bearer ", "") ?? "");
    return allow({ subject: sub, expiresAt: exp * 1000 });
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
