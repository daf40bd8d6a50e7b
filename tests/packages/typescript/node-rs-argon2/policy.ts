import { verify } from "@node-rs/argon2";

export const middleware = async ({ request }: { request: Request }) => {
  if (!(await verify(process.env.HASH!, request.headers.get("x-api-key") ?? ""))) return new Response("Unauthorized", { status: 401 });
};
