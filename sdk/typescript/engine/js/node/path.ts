// `node:path`, with the rules of POSIX.
declare const module: { exports: unknown };

function normalize(path: string): string {
  const isAbsolute = path.startsWith("/");
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.length > 0 && parts.at(-1) !== "..") parts.pop();
    else if (!isAbsolute) parts.push("..");
  }
  const text = parts.join("/") + (path.endsWith("/") && parts.length > 0 ? "/" : "");
  return (isAbsolute ? "/" : "") + text || ".";
}

function resolve(...paths: string[]): string {
  let found = "";
  for (const path of paths.toReversed()) {
    if (path) found = found ? `${path}/${found}` : path;
    if (path.startsWith("/")) break;
  }
  const text = normalize(found.startsWith("/") ? found : `/${found}`);
  return text.length > 1 && text.endsWith("/") ? text.slice(0, -1) : text;
}

function basename(path: string, suffix = ""): string {
  const name = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  return suffix && name !== suffix && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
}

function dirname(path: string): string {
  const trimmed = path.replace(/\/+$/, "");
  const at = trimmed.lastIndexOf("/");
  if (at < 0) return path.startsWith("/") ? "/" : ".";
  return at === 0 ? "/" : trimmed.slice(0, at);
}

function extname(path: string): string {
  const name = basename(path);
  const at = name.lastIndexOf(".");
  return at > 0 ? name.slice(at) : "";
}

function relative(from: string, to: string): string {
  const [left, right] = [resolve(from), resolve(to)].map((path) => path.split("/").filter(Boolean)) as [string[], string[]];
  let same = 0;
  while (same < left.length && left[same] === right[same]) same++;
  return [...left.slice(same).map(() => ".."), ...right.slice(same)].join("/");
}

const path = {
  basename,
  delimiter: ":",
  dirname,
  extname,
  isAbsolute: (path: string) => path.startsWith("/"),
  join: (...paths: string[]) => normalize(paths.filter(Boolean).join("/")),
  normalize,
  parse(path: string) {
    const base = basename(path);
    const ext = extname(path);
    return { root: path.startsWith("/") ? "/" : "", dir: dirname(path), base, ext, name: ext ? base.slice(0, -ext.length) : base };
  },
  relative,
  resolve,
  sep: "/",
};

module.exports = Object.assign(path, { posix: path });
