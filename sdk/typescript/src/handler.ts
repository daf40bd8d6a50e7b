// Which of a route file's exports decides.
import { handle, type Middleware } from "./handle.ts";

/** Answers a request as the route does. */
export type Handler = (request: Request) => unknown;

/** The handler among the exports of a route file; see the README for the choice. */
export function handlerOf(exports: unknown): Handler {
  const route = exports as Record<string, unknown> & { default?: { fetch?: unknown; middleware?: unknown } };
  if (typeof route.GET === "function") return route.GET as Handler;
  const middleware = [route.middleware, route.default].find((it) => typeof it === "function");
  if (middleware) return handle({ middleware: middleware as Middleware });
  if (typeof route.default?.fetch === "function") return route.default.fetch.bind(route.default) as Handler;
  throw new Error("a policy exports GET (from handle()), or its middleware as `middleware` or as the default");
}
