// What route handlers of Next.js do with their request, by the name of the case.
import "server-only";
import { unstable_cache } from "next/cache";
import { cookies, headers } from "next/headers";
import { forbidden, notFound, permanentRedirect, redirect, unauthorized } from "next/navigation";
import { NextRequest, NextResponse, userAgent } from "next/server";

const roleOf = unstable_cache(async (user: string) => (user === "root" ? "admin" : "member"), ["role"]);

type Result = Response | undefined;

export const cases: Record<string, (request: NextRequest) => Result | Promise<Result>> = {
  cookies(request) {
    const { cookies } = request;
    return NextResponse.json([
      cookies.get("user"),
      cookies.get({ name: "user" })?.value,
      cookies.get("none") ?? null,
      cookies.getAll(),
      cookies.getAll("user"),
      cookies.has("flag"),
      cookies.size,
      [...cookies].map(([name]) => name),
      request.cookies === cookies,
    ]);
  },
  url({ nextUrl, url }) {
    const { pathname, search, searchParams, origin, basePath, locale } = nextUrl;
    const login = nextUrl.clone();
    login.pathname = "/login";
    login.search = "";
    login.searchParams.set("from", pathname);
    return NextResponse.json([pathname, search, searchParams.getAll("channel"), origin, basePath, locale, login.href, nextUrl.href, nextUrl.toString() === url, new URL("/x", nextUrl).pathname]);
  },
  is(request) {
    const made = new NextRequest(request.url, request);
    const again = new NextRequest(new Request("https://app.example/?a=1", { headers: { cookie: "b=2" } }));
    return NextResponse.json([request instanceof NextRequest, request instanceof Request, made.cookies.get("user")?.value, again.cookies.get("b")?.value, again.nextUrl.search]);
  },
  async later() {
    const jar = await cookies();
    const names = await headers();
    const refused = await Promise.resolve().then(() => names.set("a", "b")).catch((error: Error) => error instanceof Error);
    return NextResponse.json([jar.get("user")?.value, jar.has("none"), jar.getAll().length, names.get("x-case"), [...names.keys()].includes("cookie"), refused, await roleOf("root")]);
  },
  agent: (request) => NextResponse.json([userAgent(request).isBot, userAgent(request).browser.name, userAgent(request).os.name, userAgent(request).device.type ?? null]),
  login({ nextUrl }) {
    const url = nextUrl.clone();
    url.pathname = "/login";
    url.search = "";
    const response = NextResponse.redirect(url);
    response.cookies.set("back", "/a b", { httpOnly: true, sameSite: "lax", maxAge: 60 });
    response.cookies.delete("session");
    return response;
  },
  redirect: () => redirect("/login?from=/"),
  permanent: () => permanentRedirect("https://app.example/new"),
  "not found": () => notFound(),
  forbidden: () => forbidden(),
  unauthorized: () => unauthorized(),
  async "set cookie"() {
    const jar = await cookies();
    jar.set("theme", "dark", { path: "/" });
    jar.delete("user");
    return NextResponse.json([jar.get("theme")?.value, jar.has("user"), (await cookies()).get("theme")?.value], { status: 403 });
  },
  async "stream with a cookie"() {
    (await cookies()).set({ name: "seen", value: "1", secure: true });
    return undefined;
  },
};
