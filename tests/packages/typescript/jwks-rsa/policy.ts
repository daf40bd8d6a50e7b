import jwksClient from "jwks-rsa";

const client = jwksClient({ jwksUri: "https://app.example/jwks.json" });

export const middleware = async ({ request }: { request: Request }) => {
  const key = await client.getSigningKey(request.headers.get("x-kid"));
  if (!key) return new Response("Unauthorized", { status: 401 });
};
