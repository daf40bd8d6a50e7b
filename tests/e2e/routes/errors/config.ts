import { allowedHosts } from "./lib/hosts.ts";

export const middleware = () => (allowedHosts.length > 0 ? undefined : new Response("closed", { status: 403 }));
