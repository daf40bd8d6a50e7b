// Selection of the handler among a route file's exports.
import { handle, type Middleware } from "./handle.ts";

/** The handler of a route. */
export type Handler = (request: Request) => unknown;

/** Returns the handler among the exports of a route file; the README has the order. */
export function handlerOf(exports: unknown): Handler {
  const route = exports as Record<string, unknown> & { default?: { fetch?: unknown; middleware?: unknown } };
  if (typeof route.GET === "function") return route.GET as Handler;
  const middleware = [route.middleware, route.default].find((it) => typeof it === "function");
  if (middleware) return handle({ middleware: middleware as Middleware });
  if (typeof route.default?.fetch === "function") return route.default.fetch.bind(route.default) as Handler;
  throw new Error("a policy exports GET (from handle()), or its middleware as `middleware` or as the default");
}
