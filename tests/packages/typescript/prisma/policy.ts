import { PrismaClient } from "@prisma/client";

const prisma = new PrismaClient();

export const middleware = async ({ request }: { request: Request }) => {
  const session = await prisma.session.findUnique({ where: { id: request.headers.get("x-session") ?? "" } });
  if (!session) return new Response("Unauthorized", { status: 401 });
};
