// `node:url`: the standard's classes, and the old functions for absolute URLs.
declare const module: { exports: unknown };
declare function require(name: string): { parse(text: string): unknown };

const querystring = require("./querystring.ts");

/** The parts of an absolute URL, or of a path with a query. */
function parse(text: string, parsesQuery = false) {
  const isAbsolute = URL.canParse(text);
  const url = new URL(text, "http://relative.invalid");
  const part = (value: string) => (value === "" ? null : value);
  const query = url.search.slice(1);
  return {
    protocol: isAbsolute ? url.protocol : null,
    slashes: isAbsolute ? true : null,
    auth: isAbsolute && url.username ? `${url.username}:${url.password}` : null,
    host: isAbsolute ? url.host : null,
    port: isAbsolute ? part(url.port) : null,
    hostname: isAbsolute ? url.hostname : null,
    hash: part(url.hash),
    search: part(url.search),
    query: parsesQuery ? querystring.parse(query) : part(query),
    pathname: url.pathname,
    path: url.pathname + url.search,
    href: isAbsolute ? url.href : text,
  };
}

module.exports = {
  URL,
  URLSearchParams,
  domainToASCII: (name: string) => (URL.canParse(`http://${name}`) ? new URL(`http://${name}`).hostname : ""),
  fileURLToPath: (url: string | URL) => decodeURIComponent(new URL(url).pathname),
  format: (url: URL | { href?: string }) => url.href ?? "",
  parse,
  pathToFileURL: (path: string) => new URL(`file://${path}`),
  resolve: (from: string, to: string) => new URL(to, new URL(from, "resolve://")).href.replace(/^resolve:\/\//, ""),
};
