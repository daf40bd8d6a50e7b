import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });

export const middleware = async ({ request }: { request: Request }) => {
  const { rows } = await pool.query("select 1 from sessions where id = $1", [request.headers.get("x-session")]);
  if (rows.length === 0) return new Response("Unauthorized", { status: 401 });
};
