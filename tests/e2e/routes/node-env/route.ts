// Libraries give cookies another name in production.
const secure = process.env.NODE_ENV === "production";

export default ({ request }: { request: Request }) => {
  const name = `${secure ? "__Secure-" : ""}app.session`;
  if (!request.headers.get("cookie")?.includes(`${name}=`)) return new Response(`no ${name}`, { status: 401 });
};
