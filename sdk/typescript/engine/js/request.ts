// The request of a decision.
import { asNextRequest } from "../../src/next/server.ts";

/** A standard request, with the properties of Next.js. Names are in lower case, values are Latin-1 text. */
export function serverRequest(method: string, url: string, names: string[], values: string[]): Request {
  const headers = new Headers();
  for (const [at, name] of names.entries()) headers.append(name, values[at] as string);
  return asNextRequest(new Request(url, { method, headers }));
}
