import axios, { isAxiosError } from "axios";
import { handle } from "@upstash/realtime";

const api = axios.create({ baseURL: "https://api.example", timeout: 2000 });

export const GET = handle({
  middleware: async ({ request }) => {
    try {
      const { data } = await api.get("/session", { headers: { cookie: request.headers.get("cookie") } });
      if (!data.user) return new Response("Unauthorized", { status: 401 });
    } catch (error) {
      if (!isAxiosError(error)) throw error;
      return Response.json({ code: error.code }, { status: 503 });
    }
  },
});
