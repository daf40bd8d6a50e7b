import { handle } from "@upstash/realtime";
import { cases } from "@/lib/cases";
import { realtime } from "@/lib/realtime";

export const GET = handle({
  realtime,
  middleware: async ({ request, channels }) => {
    const name = request.headers.get("x-case") ?? "";
    return cases[name]?.({ request, channels });
  },
});
