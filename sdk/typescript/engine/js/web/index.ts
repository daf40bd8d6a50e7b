// A placeholder until the web platform of H3 is merged, which replaces this file: just what the route of a test needs.
class Headers {
  map = new Map<string, string>();
  constructor(init?: any) {
    if (init instanceof Headers) this.map = new Map(init.map);
    else if (Array.isArray(init)) for (const [n, v] of init) this.append(n, v);
    else for (const [n, v] of Object.entries(init ?? {})) this.append(n, v as string);
  }
  append(name: string, value: string) {
    name = name.toLowerCase();
    this.map.set(name, this.map.has(name) ? `${this.map.get(name)}, ${value}` : String(value));
  }
  get(name: string) {
    return this.map.get(name.toLowerCase()) ?? null;
  }
  [Symbol.iterator]() {
    return this.map[Symbol.iterator]();
  }
}
class URL {
  searchParams: { getAll(name: string): string[] };
  href: string;
  constructor(href: string) {
    this.href = href;
    const pairs = (href.split("?")[1] ?? "").split("&").map((it) => it.split("=").map(decodeURIComponent));
    this.searchParams = { getAll: (name: string) => pairs.filter(([key]) => key === name).map((it) => it[1] as string) };
  }
}
class Request {
  url: string;
  method: string;
  headers: Headers;
  constructor(url: any, init: any = {}) {
    this.url = url.url ?? String(url);
    this.method = init.method ?? "GET";
    this.headers = new Headers(init.headers);
  }
}
class Response {
  status: number;
  headers: Headers;
  text: string | null;
  body: unknown;
  constructor(body: any, init: any = {}) {
    this.text = this.body = body ?? null;
    this.status = init.status ?? 200;
    this.headers = new Headers(init.headers);
  }
  async arrayBuffer() {
    return native.utf8Encode(this.text ?? "").buffer;
  }
  static json(body: unknown, init: any = {}) {
    return new Response(JSON.stringify(body), init);
  }
}
Object.assign(globalThis, { Headers, Request, Response, URL });
export {};
