import { drizzle } from "drizzle-orm/node-postgres";
import { db } from "./db.ts";

export const middleware = async ({ request }: { request: Request }) => {
  const rows = await (db as ReturnType<typeof drizzle>).execute("select 1");
  if (rows.rows.length === 0) return new Response(request.url, { status: 401 });
};
