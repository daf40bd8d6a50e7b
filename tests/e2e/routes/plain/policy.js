// A file with only a middleware, in JavaScript, with top-level `await` and with modules of Next.js.
import "server-only";
import { cookies, headers } from "next/headers";
import { NextResponse } from "next/server";

const greeting = await Promise.resolve(process.env.GREETING);

export default async function middleware({ channels }) {
  if (channels.includes("open")) return;
  if (channels.includes("next")) {
    const store = await cookies();
    const read = [store.get("name")?.value, cookies().has("nobody"), (await headers()).get("x-a"), store.size];
    return NextResponse.json(read, { status: 403, headers: { "x-b": "1" } });
  }
  return new Response(`${greeting}, no`, { status: 403 });
}
