// Middlewares by the name of their case. Each makes the same decision on Node and in a policy.
import { hmac, verify } from "@/lib/auth";
import { audience, born, bytes } from "./config";

interface Input {
  request: Request;
  channels: string[];
}

// biome-ignore lint: some cases return invalid values.
type Case = (input: Input) => any;

const json = (value: unknown, init: ResponseInit = { status: 403 }) => Response.json(value, init);
const nameOf = async (run: () => unknown) => {
  try {
    return ["fine", await run()];
  } catch (error) {
    return [(error as Error)?.name ?? typeof error];
  }
};

export const cases: Record<string, Case> = {
  // Answers.
  undefined: () => undefined,
  null: () => null,
  false: () => false,
  zero: () => 0,
  "empty string": () => "",
  text: () => new Response("Unauthorized", { status: 401 }),
  "text of ok": () => new Response("fine, but no stream"),
  json: () => Response.json({ error: "Nö", list: [1, null, { a: undefined }] }, { status: 403, headers: { "x-why": "because" } }),
  "json of another type": () => Response.json({}, { status: 400, headers: { "content-type": "application/problem+json" } }),
  redirect: () => Response.redirect("https://login.example/?next=/a b"),
  "redirect 307": () => Response.redirect("https://login.example/", 307),
  "relative redirect": () => Response.redirect("/login"),
  "no content": () => new Response(null, { status: 204 }),
  "no body": () => new Response(undefined, { status: 401 }),
  "own reason phrase": () => new Response("short and stout", { status: 418, statusText: "I am a teapot" }),
  cookies() {
    const response = new Response("bye", { status: 401 });
    response.headers.append("set-cookie", "session=; Max-Age=0; Path=/");
    response.headers.append("set-cookie", "theme=dark");
    response.headers.append("x-list", "a");
    response.headers.append("x-list", "b");
    return response;
  },
  "latin-1 header": () => new Response("", { status: 403, headers: { "x-name": "Zoë" } }),
  "bytes": () => new Response(Uint8Array.of(0, 1, 254, 255), { status: 403 }),
  "blob": () => new Response(new Blob(["<p>no"], { type: "text/html" }), { status: 403 }),
  "form": () => new Response(new URLSearchParams({ error: "no way" }), { status: 403 }),
  "stream": () =>
    new Response(
      new ReadableStream({
        async start(controller) {
          for (const part of ["a", "b", "ü"]) {
            controller.enqueue(new TextEncoder().encode(part));
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
          controller.close();
        },
      }),
      { status: 403, headers: { "content-type": "text/plain" } },
    ),
  async clone() {
    const response = new Response("twice", { status: 403 });
    return new Response((await response.clone().text()) + (await response.text()), response);
  },
  "of a class": () => new (class extends Response {})("mine", { status: 403, headers: { "x-own": "1" } }),
  // Invalid answers.
  throws() {
    throw new Error("the password is hunter2");
  },
  "throws text": () => Promise.reject("hunter2"),
  "throws later": async () => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return (undefined as unknown as { a: string }).a;
  },
  "returns an object": () => ({ allow: true }),
  "returns true": () => true,
  "body was read": async () => {
    const response = new Response("once", { status: 403 });
    await response.text();
    return response;
  },
  // The request.
  request({ request, channels }) {
    const url = new URL(request.url);
    return json({
      method: request.method,
      path: url.pathname,
      query: [...url.searchParams],
      channels,
      cookie: request.headers.get("cookie"),
      names: ["Authorization", "x-twice", "x-empty", "nope", "host", "te"].map((name) => request.headers.get(name)),
      has: [request.headers.has("COOKIE"), request.headers.has("nope")],
      aborted: request.signal.aborted,
      body: request.body,
      is: [request instanceof Request, request.headers instanceof Headers],
    });
  },
  "request again": ({ request }) => json([...new Request(request, { headers: { a: "b" } }).headers, request.clone().headers.get("x-case")]),
  "fewer channels": ({ channels }) => void channels.pop(),
  // Web standards.
  async standard() {
    const order: string[] = [];
    setTimeout(() => order.push("timer"), 0);
    queueMicrotask(() => order.push("microtask"));
    Promise.resolve().then(() => order.push("promise"));
    order.push("now");
    await new Promise((resolve) => setTimeout(resolve, 5));
    const abort = new AbortController();
    abort.abort();
    return json({
      order,
      url: new URL("../ü?x=1&x=2#z", "http://EXAMPLE.com:80/a/b/").href,
      query: new URLSearchParams("a=1&b=%20+&a=ü").getAll("a"),
      utf8: [...new TextEncoder().encode("ü\ud800")],
      text: new TextDecoder().decode(Uint8Array.of(0xc3, 0xbc, 0xff)),
      base64: [btoa("hi"), atob("aGk="), await nameOf(() => atob("*"))],
      clone: structuredClone({ date: new Date(5), map: new Map([["a", new Set([1])]]) }).map.size,
      aborted: [abort.signal.aborted, abort.signal.reason.name, await nameOf(() => AbortSignal.abort().throwIfAborted())],
      timeout: await new Promise((resolve) => {
        const signal = AbortSignal.timeout(2);
        signal.addEventListener("abort", () => resolve(signal.reason.name));
      }),
      any: AbortSignal.any([AbortSignal.abort("x")]).reason,
      parse: [URL.canParse("nope"), URL.canParse("/a", "http://b")],
      digest: [...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("abc")))].slice(0, 4),
      hmac: await hmac("key", "text"),
      uuid: /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()),
      letters: [/^\p{L}+$/u.test("äß"), /[^\p{Lu}\d]/u.test("Ä1"), "e\u0301".normalize("NFC").length],
      iterated: await Array.fromAsync?.(["a"]) ?? ["a"],
      error: [new Error("a", { cause: "b" }).cause, String(new DOMException("m", "DataError"))],
      buffer: Buffer.from("aGk", "base64").toString("hex"),
      headers: [...new Headers([["B", "1"], ["a", "2"], ["b", "3"]])],
      bad: [
        await nameOf(() => new Headers({ "a b": "c" })),
        await nameOf(() => new Response("", { status: 99 })),
        await nameOf(() => new URL("nope")),
        await nameOf(() => JSON.parse("{")),
        await nameOf(() => structuredClone(() => 1)),
        await nameOf(() => Response.json(undefined)),
      ],
    });
  },
  async decrypt() {
    const raw = new TextEncoder().encode("a password of the app, 32 bytes..");
    const base = await crypto.subtle.importKey("raw", raw, "HKDF", false, ["deriveKey"]);
    const params = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(8), info: new Uint8Array() };
    const key = await crypto.subtle.deriveKey(params, base, { name: "AES-GCM", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(12);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, new TextEncoder().encode("session"));
    const open = await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, sealed);
    const broken = new Uint8Array(sealed);
    broken[0] = (broken[0] ?? 0) ^ 1;
    const failed = await nameOf(() => crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, broken));
    return json([Buffer.from(sealed).toString("base64"), new TextDecoder().decode(open), failed]);
  },
  async token({ request }) {
    const of = (name: string) => request.headers.get(name) ?? "";
    try {
      return json(await verify(of("x-token"), atob(of("x-key")), of("x-alg")));
    } catch (error) {
      return json([(error as Error).name, (error as { issues?: unknown }).issues], { status: 401 });
    }
  },
  // State of an instance; see policies.test.js.
  own: () => json({ audience, born, bytes: [...bytes], random: Math.random(), uuid: crypto.randomUUID(), now: Date.now() }),
  env: ({ request }) => {
    const name = request.headers.get("x-name") ?? "";
    return json([process.env[name] ?? null, name in process.env, process.env.NODE_ENV, { ...process.env }.PATH ?? null]);
  },
  async fetch({ request }) {
    try {
      const url = request.headers.get("x-url") ?? "";
      const method = request.headers.get("x-method") ?? "POST";
      const body = method === "POST" ? JSON.stringify({ a: "ü" }) : undefined;
      const answer = await fetch(url, { method, headers: { "x-from": "policy" }, body });
      return json([answer.status, answer.ok, answer.headers.get("x-answer"), await answer.json()]);
    } catch (error) {
      return json([(error as Error).name], { status: 502 });
    }
  },
  logs() {
    console.error("look: %s", "here", { a: [1] });
    return json("logged");
  },
};
