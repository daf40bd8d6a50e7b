import { handle } from "@upstash/realtime";
import type { NextRequest } from "next/server";
import { cases } from "@/lib/cases";

const stream = handle({});

export async function GET(request: NextRequest) {
  return (await cases[request.headers.get("x-case") ?? ""]?.(request)) ?? stream(request);
}
