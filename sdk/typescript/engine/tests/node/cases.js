// Expressions that have the same value on Node: each line is evaluated as the body of an asynchronous function that returns it.
const CASES = String.raw`
// Headers
[...new Headers({ b: "2", a: "1" })]
[...new Headers([["a", "1"], ["A", "2"], ["b", " x\t"]])]
[...new Headers(new Headers({ a: "1" })).keys()]
[...new Headers({ a: "1" }).values()]
new Headers([["cookie", "a=1"], ["cookie", "b=2"]]).get("Cookie")
new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x", "y"]]).getSetCookie()
[...new Headers([["set-cookie", "a=1"], ["x", "y"], ["set-cookie", "b=2"]])]
new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]]).get("set-cookie")
new Headers({ a: "1" }).get("b")
new Headers({ a: "1" }).has("A")
new Headers().get(undefined)
new Headers({ a: undefined, b: null, c: 3 }).get("a")
new Headers([["a"]])
new Headers([["a", "b", "c"]])
new Headers("text")
new Headers(null)
new Headers(5)
new Headers(undefined)
new Headers({ "a b": "c" })
new Headers({ "": "c" })
new Headers({ a: "b\nc" })
new Headers({ a: "\n b \r" }).get("a")
new Headers({ a: "b\0c" })
new Headers({ a: "ü" }).get("a")
new Headers({ a: "漢" })
new Headers({ [Symbol("a")]: "b" })
new Headers().get("a b")
new Headers().append("a")
new Headers().set("a")
new Headers().delete()
(() => { const h = new Headers({ a: "1", b: "2" }); h.append("a", "3"); h.set("b", "4"); h.delete("c"); return [...h]; })()
(() => { const h = new Headers([["a", "1"], ["b", "2"], ["a", "3"]]); h.set("A", "9"); return [...h]; })()
(() => { const h = new Headers([["a", "1"], ["b", "2"], ["a", "3"]]); h.delete("A"); return [...h]; })()
(() => { const h = new Headers({ c: "1", a: "2" }); const seen = []; h.forEach(function (value, name, all) { seen.push([value, name, all === h, this.x]); }, { x: 1 }); return seen; })()
(() => { const h = new Headers({ a: "1", b: "2" }); const seen = []; for (const [name] of h) { seen.push(name); h.delete("b"); } return seen; })()
(() => { const h = new Headers({ a: "1" }); const seen = []; for (const [name] of h) { seen.push(name); if (seen.length < 4) h.append("b" + seen.length, "x"); } return seen; })()
Object.prototype.toString.call(new Headers())
Object.prototype.toString.call(new Headers().entries())
typeof new Headers().entries().next
new Headers()[Symbol.iterator] === new Headers().entries
Headers.prototype.get.call({}, "a")
Object.keys(new Headers({ a: "1" }))
Object.fromEntries(new Headers({ a: "1", B: "2" }))
JSON.stringify(new Headers({ a: "1" }))
Headers.name + Headers.length
Headers()
new (class extends Headers { get(name) { return "sub " + super.get(name); } })({ a: "1" }).get("a")
// Request
new Request("http://h/a b?c=d#e").url
new Request(new URL("http://h/x")).url
new Request("/relative")
new Request("http://u:p@h/")
new Request()
new Request(undefined)
new Request("ftp://h/").url
new Request("http://h/", { method: "post" }).method
new Request("http://h/", { method: "patch" }).method
new Request("http://h/", { method: "CONNECT" })
new Request("http://h/", { method: "a b" })
new Request("http://h/", { method: undefined }).method
new Request("http://h/", { body: "x" })
new Request("http://h/", { method: "POST", body: "x" }).headers.get("content-type")
new Request("http://h/", { method: "POST", body: new Uint8Array(2) }).headers.get("content-type")
new Request("http://h/", { method: "POST", body: new URLSearchParams("a=b") }).headers.get("content-type")
new Request("http://h/", { method: "POST", body: new Blob(["x"], { type: "text/x" }) }).headers.get("content-type")
new Request("http://h/", { method: "POST", body: new FormData() }).headers.get("content-type").replace(/boundary=.*/, "")
new Request("http://h/", { method: "POST", body: "x", headers: { "content-type": "a/b" } }).headers.get("content-type")
new Request("http://h/", { method: "POST", body: new ReadableStream() })
new Request("http://h/", { method: "POST", body: new ReadableStream(), duplex: "half" }).duplex
await new Request("http://h/", { method: "POST", body: "äöü" }).text()
await new Request("http://h/", { method: "POST", body: '{"a":1}' }).json()
await new Request("http://h/", { method: "POST", body: "{" }).json()
await new Request("http://h/", { method: "POST", body: "a=1&b=2", headers: { "content-type": "application/x-www-form-urlencoded" } }).formData().then((it) => [...it])
await new Request("http://h/", { method: "POST", body: "a=1" }).formData()
new Request("http://h/").body
(() => { const r = new Request("http://h/"); return [r.mode, r.credentials, r.cache, r.redirect, r.referrer, r.referrerPolicy, r.destination, r.integrity, r.keepalive, r.duplex, r.bodyUsed]; })()
(() => { const r = new Request("http://h/", { mode: "same-origin", credentials: "omit", cache: "no-store", redirect: "manual", integrity: "x", keepalive: true, referrerPolicy: "origin" }); return [r.mode, r.credentials, r.cache, r.redirect, r.integrity, r.keepalive, r.referrerPolicy]; })()
new Request("http://h/", { mode: "navigate" })
new Request("http://h/", { redirect: "x" })
new Request("http://h/", { cache: "only-if-cached" })
new Request("http://h/", { window: 1 })
new Request("http://h/", { signal: {} })
new Request("http://h/", 5)
new Request("http://h/", null).url
new Request("http://h/").signal.aborted
new Request("http://h/", { signal: AbortSignal.abort("why") }).signal.reason
(() => { const c = new AbortController(); const r = new Request("http://h/", { signal: c.signal }); const same = r.signal === c.signal; c.abort("x"); return [same, r.signal.aborted, r.signal.reason]; })()
new Request("http://h/", { headers: { host: "other", connection: "close", te: "x", cookie: "a" } }).headers.get("host")
[...new Request("http://h/", { headers: { Host: "other", Cookie: "a" } }).headers]
(() => { const a = new Request("http://h/", { headers: { a: "1" }, method: "POST", body: "x" }); const b = new Request(a); return [b.method, b.headers.get("a"), a.bodyUsed, b.bodyUsed]; })()
(() => { const a = new Request("http://h/", { headers: { a: "1" } }); const b = new Request(a, { headers: { b: "2" }, method: "POST", body: "x" }); return [[...b.headers], b.method, [...a.headers]]; })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: "x" }); const b = a.clone(); return [await a.text(), await b.text(), a.bodyUsed, b.bodyUsed]; })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: "x" }); await a.text(); return a.clone(); })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: "x" }); await a.text(); return new Request(a); })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: "x" }); await a.text(); return a.text(); })()
(() => { const a = new Request("http://h/", { headers: { a: "1" } }); const b = a.clone(); b.headers.set("a", "2"); return [a.headers.get("a"), b.url, b instanceof Request]; })()
Object.keys(new Request("http://h/"))
Object.prototype.toString.call(new Request("http://h/"))
new (class extends Request { get extra() { return this.headers.get("a"); } })("http://h/", { headers: { a: "1" } }).extra
Request.prototype.url
Request.name + Request.length
// Response
(() => { const r = new Response(); return [r.status, r.statusText, r.ok, r.type, r.url, r.redirected, r.body, r.bodyUsed, [...r.headers]]; })()
(() => { const r = new Response("x", { status: 404, statusText: "Nope", headers: { a: "1" } }); return [r.status, r.statusText, r.ok, [...r.headers]]; })()
new Response("x", { status: 99 })
new Response("x", { status: 600 })
new Response("x", { status: "204" })
new Response(null, { status: 204 }).status
new Response("", { status: 304 })
new Response(null, { status: 101 })
new Response("x", { statusText: "a\nb" })
new Response("x", { status: 200.7 }).status
new Response("x", { headers: null })
new Response("x", 5)
new Response("x", null).status
new Response(undefined).body
new Response(null).body
await new Response(undefined).text()
await new Response().arrayBuffer().then((it) => it.byteLength)
await new Response(5).text()
await new Response({}).text()
await new Response([1, 2]).text()
await new Response("").json()
await new Response("\ufeffabc").text()
await new Response("a\ud800b").text()
await new Response(new Uint8Array([0xef, 0xbb, 0xbf, 0x61, 0xff])).text()
await new Response(new Uint8Array([1, 2, 3]).subarray(1)).arrayBuffer().then((it) => [...new Uint8Array(it)])
await new Response(new DataView(new Uint8Array([1, 2, 3]).buffer, 1, 1)).bytes?.().then((it) => [...it]) ?? [2]
await new Response(new Blob(["ab"], { type: "A/B" })).blob().then((it) => [it.type, it.size])
await new Response("x", { headers: { "content-type": "Text/Plain; charset=x" } }).blob().then((it) => it.type)
await new Response(new URLSearchParams({ a: "ü b" })).text()
await new Response((async function* () { yield new Uint8Array([97]); yield new Uint8Array([98]); })()).text()
await new Response(new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode("st")); c.close(); } })).text()
await new Response(new ReadableStream({ start(c) { c.enqueue("text"); c.close(); } })).text()
await new Response(new ReadableStream({ start(c) { c.error(new RangeError("broken")); } })).text()
(() => { const s = new ReadableStream(); return new Response(s).body === s; })()
(() => { const s = new ReadableStream(); s.getReader(); return new Response(s); })()
(() => { const r = new Response("x"); return [r.body === r.body, r.body.locked, r.bodyUsed, r.body instanceof ReadableStream]; })()
await (async () => { const r = new Response("x"); r.body; const text = await r.text(); return [text, r.bodyUsed, r.body.locked]; })()
await (async () => { const r = new Response("x"); await r.text(); return [r.bodyUsed, r.body.locked]; })()
await (async () => { const r = new Response("x"); const reader = r.body.getReader(); const { value } = await reader.read(); return [...value, r.bodyUsed]; })()
await (async () => { const r = new Response("x"); r.body.getReader(); return r.text(); })()
await (async () => { const r = new Response("x"); await r.body.cancel(); return r.bodyUsed; })()
await (async () => { const r = new Response("abc"); const c = r.clone(); return [await r.text(), await c.text()]; })()
await (async () => { const r = new Response("abc"); r.body; const c = r.clone(); return [await c.text(), await r.text()]; })()
await (async () => { const r = new Response("abc"); await r.text(); return r.clone(); })()
(() => { const r = new Response("x", { headers: { a: "1" }, status: 201, statusText: "S" }); const c = r.clone(); c.headers.set("a", "2"); return [r.headers.get("a"), c.status, c.statusText, c.headers.get("content-type")]; })()
(() => { const a = new Response("x", { status: 403, headers: { b: "2" } }); const b = new Response(a.body, a); return [b.status, [...b.headers]]; })()
(() => { const r = Response.json({ a: [1] }, { status: 202, headers: { b: "1" } }); return [r.status, [...r.headers]]; })()
await Response.json({ a: [1, "ü"], b: undefined }).text()
Response.json("x", { headers: { "content-type": "a/b" } }).headers.get("content-type")
Response.json(undefined)
Response.json(() => 1)
Response.json({}, { status: 204 })
Response.json()
(() => { const a = {}; a.a = a; return Response.json(a); })()
(() => { const r = Response.redirect("http://h/a b"); return [r.status, [...r.headers], r.body, r.type]; })()
Response.redirect("http://h/", 307).status
Response.redirect("http://h/", 200)
Response.redirect("/relative")
Response.redirect("http://h/").headers.set("a", "b")
(() => { const r = Response.error(); return [r.status, r.type, r.ok, [...r.headers], r.body]; })()
Response.error().headers.append("a", "b")
Object.keys(new Response())
Object.keys(Object.getOwnPropertyDescriptors(Response)).filter((it) => ["json", "error", "redirect"].includes(it)).sort()
Object.prototype.toString.call(new Response())
Response.prototype.text.call({})
(() => { try { Response.prototype.status; } catch (error) { return error.name; } })()
new (class extends Response {})("x", { status: 201 }).status
new Response("x", { headers: { "Set-Cookie": "a=b" } }).headers.getSetCookie()
(() => { const r = new Response("x"); r.headers.append("set-cookie", "a"); r.headers.append("set-cookie", "b"); return [...r.headers]; })()
await (async () => { const r = new Response("x"); const s = new Response(r.body); const text = await s.text(); return [text, r.bodyUsed, r.body.locked, s.bodyUsed, s.body === r.body]; })()
await (async () => { const r = new Response("x"); const s = new Response(r.body); await r.text(); return s.text(); })()
await (async () => { const r = new Response("x"); r.body; await r.text(); return [r.bodyUsed, r.body.locked, await r.body.cancel().catch((e) => e.name)]; })()
await (async () => { const r = new Response("x"); const [a, b] = r.body.tee(); return [r.bodyUsed, r.body.locked, await new Response(a).text(), await new Response(b).text()]; })()
await (async () => { const reader = new ReadableStreamDefaultReader(new Response("xy").body); const first = await reader.read(); return [...first.value, (await reader.read()).done, await reader.closed]; })()
await (async () => { const reader = new Response("xyz").body.getReader({ mode: "byob" }); const first = await reader.read(new Uint8Array(2)); const second = await reader.read(new Uint8Array(2)); return [...first.value, ...second.value]; })()
await new Response(new Response("abc").body.pipeThrough(new TransformStream({ transform(chunk, c) { c.enqueue(chunk.map((it) => it - 32)); } }))).text()
await (async () => { const seen = []; await new Response("abc").body.pipeTo(new WritableStream({ write(chunk) { seen.push(...chunk); } })); return seen; })()
await new Response(ReadableStream.from ? ReadableStream.from(new Response("abc").body) : "abc").text()
(() => { const { body } = new Response("x"); return [Object.prototype.toString.call(body), body instanceof ReadableStream, body.locked, typeof body.getReader, body.constructor === ReadableStream]; })()
await (async () => { const r = new Response(""); const { done } = await r.body.getReader().read(); return [done, r.body !== null]; })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: "x" }); a.body; const b = new Request(a); return [await b.text(), a.bodyUsed]; })()
await (async () => { const a = new Request("http://h/", { method: "POST", body: new Blob(["x"]).stream(), duplex: "half" }); const b = new Request(a); return [await b.text(), a.bodyUsed]; })()
await (async () => { const s = new Blob(["x"]).stream(); const before = s.locked; const text = await new Response(s).text(); return [before, text, s.locked]; })()
await (async () => { const r = new Response("x"); const c = new Response(r.body).clone(); return [await c.text(), await r.text().catch((e) => e.name)]; })()
// FormData
(() => { const f = new FormData(); f.append("a", "1"); f.append("a", 2); f.set("b", "x"); return [[...f], f.getAll("a"), f.get("c"), f.has("b")]; })()
(() => { const f = new FormData(); f.append("a", new Blob(["x"], { type: "t/x" })); const file = f.get("a"); return [file.name, file.type, file.size, file instanceof File]; })()
(() => { const f = new FormData(); f.append("a", new Blob(["x"]), "n.txt"); return f.get("a").name; })()
(() => { const f = new FormData(); f.append("a", new File(["x"], "f.txt", { lastModified: 5 })); return [f.get("a").name, f.get("a").lastModified]; })()
(() => { const f = new FormData(); f.append("a", "1"); f.append("b", "2"); f.append("a", "3"); f.set("a", "4"); f.delete("b"); return [...f.entries()]; })()
new FormData().append("a")
new FormData().append("a", "b", "c")
new FormData({})
Object.prototype.toString.call(new FormData())
await (async () => { const f = new FormData(); f.append("a", "1\n2"); f.append('n"\r\n', "ü"); f.append("f", new File(["data"], 'q".txt', { type: "a/b" })); const r = new Response(f); const boundary = /boundary=(.*)/.exec(r.headers.get("content-type"))[1]; return (await r.text()).replaceAll(boundary, "B"); })()
await (async () => { const f = new FormData(); f.append("a", "1"); f.append("f", new File(["da\r\nta"], "ü.txt", { type: "a/b" })); const g = await new Response(f).formData(); return [g.get("a"), g.get("f").name, g.get("f").type, await g.get("f").text()]; })()
await new Response("x", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData()
await new Response("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n--b--\r\n", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData().then((it) => [...it])
await new Response("x", { headers: { "content-type": "multipart/form-data" } }).formData()
await new Response("").formData()
// URL
new URL("http://User:Pass@EXAMPLE.com:80/a/../b?q#h").href
(() => { const u = new URL("http://u:p@h:8080/p?q=1#f"); return [u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash, u.origin]; })()
(() => { const u = new URL("http://h/?a=1"); u.searchParams.append("b", "ü x"); u.hash = "z"; u.pathname = "/x y"; u.port = "81"; return [u.href, String(u), JSON.stringify({ u })]; })()
(() => { const u = new URL("http://h/?a=1"); const p = u.searchParams; u.search = "?c=2"; const first = [...p]; u.href = "http://h/?d=3"; return [first, [...p], p === u.searchParams]; })()
(() => { const u = new URL("http://h/?a=b%20c~"); u.searchParams.delete("x"); return u.href; })()
new URL("nothing")
(() => { try { new URL("nothing", "also"); } catch (error) { return [error.name, error.code, error.input, error.message]; } })()
URL.canParse("http://h")
URL.canParse("/a", "x")
new URL()
new URL("//x/y", "https://h").href
new URL("blob:https://h/x").origin
new URL("file:///a/b").origin
new URL("mailto:a@b").pathname
new URL("http://münchen.de/ü?ü#ü").href
new URL("http://[::1]:3000/").host
new URL("http://0x7f.1/").hostname
new URL("http://h/%zz%41").pathname
new URL("http://a b/")
Object.keys(new URL("http://h/"))
Object.prototype.toString.call(new URL("http://h/"))
new (class extends URL { get locale() { return this.pathname.slice(1, 3); } })("http://h/de/x").locale
URL.createObjectURL({})
// URLSearchParams
new URLSearchParams("?a=1&b=%20+&c").toString()
new URLSearchParams({ a: "1", b: "ü" }).toString()
new URLSearchParams([["a", "1"], ["a", "2"]]).getAll("a")
new URLSearchParams([["a"]])
new URLSearchParams(new URLSearchParams("a=1")).get("a")
new URLSearchParams("a=1&a=2").size
(() => { const p = new URLSearchParams("b=1&a=2&b=0"); p.sort(); return p.toString(); })()
new URLSearchParams("a=1&b=2&a=3").has("a", "3")
(() => { const p = new URLSearchParams("a=1&b=2&a=3"); p.delete("a", "3"); return String(p); })()
[...new URLSearchParams("a=1&b=2").entries()]
new URLSearchParams(null).toString()
new URLSearchParams(undefined).toString()
Object.prototype.toString.call(new URLSearchParams().entries())
// Text and base64
[...new TextEncoder().encode("aü漢🦀\ud800")]
new TextEncoder().encodeInto("aü", new Uint8Array(2))
new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 0x61, 0xff]))
new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xff]))
new TextDecoder("latin1").encoding
new TextDecoder("windows-1252").decode(new Uint8Array([0x80, 0xe4]))
new TextDecoder("utf-16le").decode(new Uint8Array([0x61, 0x00, 0x3d, 0xd8]))
new TextDecoder("nope")
(() => { const d = new TextDecoder(); return [d.decode(new Uint8Array([0xc3]), { stream: true }), d.decode(new Uint8Array([0xbc]))]; })()
new TextDecoder().decode()
new TextDecoder().decode("x")
btoa("aü")
btoa("漢")
atob(" YW\nI= ")
atob("a")
btoa(undefined)
// Blobs
await new Blob(["a", new Uint8Array([98]), new Blob(["c"])]).text()
new Blob(["abc"], { type: "Text/X" }).slice(1, -1).size
new Blob(["abc"], { type: "Text/X" }).type
await new Blob(["abc"]).slice(1).text()
await new Response(new Blob(["abc"]).stream()).text()
new Blob("abc")
new File(["a"], "n", { type: "t/t", lastModified: 7 }).lastModified
new File(["a"])
Object.prototype.toString.call(new File([], "x"))
// Abortion and events
AbortSignal.abort().reason.name
AbortSignal.abort("x").reason
(() => { const c = new AbortController(); c.abort(); return [c.signal.reason instanceof DOMException, c.signal.reason.name, c.signal.reason.message, c.signal.reason.code]; })()
(() => { const c = new AbortController(); const seen = []; c.signal.onabort = (e) => seen.push(e.type); c.signal.addEventListener("abort", () => seen.push("listener"), { once: true }); c.abort(1); c.abort(2); return [seen, c.signal.reason]; })()
(() => { const a = new AbortController(), b = new AbortController(); const any = AbortSignal.any([a.signal, b.signal]); b.abort("b"); a.abort("a"); return [any.aborted, any.reason]; })()
AbortSignal.any([]).aborted
AbortSignal.any([AbortSignal.abort("x"), AbortSignal.abort("y")]).reason
AbortSignal.abort("x").throwIfAborted()
new AbortSignal()
await new Promise((resolve) => { const s = AbortSignal.timeout(1); s.onabort = () => resolve([s.reason.name, s.reason.message, s.reason.code]); setTimeout(() => {}, 50); })
(() => { const t = new EventTarget(); const seen = []; t.addEventListener("a", { handleEvent(e) { seen.push([e.type, e.target === t, e.detail]); } }); t.dispatchEvent(new CustomEvent("a", { detail: 5 })); return seen; })()
(() => { const t = new EventTarget(); t.addEventListener("a", (e) => e.preventDefault()); return [t.dispatchEvent(new Event("a")), t.dispatchEvent(new Event("a", { cancelable: true }))]; })()
new EventTarget().dispatchEvent({})
(() => { const e = new DOMException("m", "AbortError"); return [e.name, e.message, e.code, e instanceof Error, Object.prototype.toString.call(e), String(e)]; })()
new DOMException("m", { name: "X", cause: 5 }).cause
new DOMException("m", "DataCloneError").code
// Clones
structuredClone({ a: [1, { b: new Date(5) }], c: new Map([[1, new Set([2])]]), d: /x/gi, e: undefined, f: 5n })
structuredClone(() => 1)
structuredClone(Symbol("a"))
(() => { try { structuredClone({ a() {} }); } catch (e) { return [e.name, e.code, e instanceof DOMException]; } })()
(() => { const a = { self: null }; a.self = a; const b = structuredClone(a); return b !== a && b.self === b; })()
(() => { const b = new Uint8Array([1, 2, 3]); const c = structuredClone(b, { transfer: [b.buffer] }); return [...c, b.byteLength]; })()
(() => { const e = structuredClone(new RangeError("r", { cause: 1 })); return [e instanceof RangeError, e.name, e.message, e.cause]; })()
(() => { class A { constructor() { this.x = 1; } } const c = structuredClone(new A()); return [c.constructor === Object, c.x]; })()
structuredClone(new WeakMap())
structuredClone([1, , 3]).length
structuredClone(Object(1n)) instanceof BigInt
await structuredClone(new Blob(["x"])).text()
// Streams
await new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array([104, 105])); c.close(); } }).pipeThrough(new TextDecoderStream()).pipeThrough(new TextEncoderStream())).text()
await (async () => { const parts = []; for await (const part of new Blob(["abc"]).stream()) parts.push(...part); return parts; })()
await (async () => { const c = new Response("hello hello hello").body.pipeThrough(new CompressionStream("gzip")); return new Response(c.pipeThrough(new DecompressionStream("gzip"))).text(); })()
await new Response(new Blob(["not gzip"]).stream().pipeThrough(new DecompressionStream("gzip"))).text()
new CompressionStream("zip")
// Messages, timers, the rest
await new Promise((resolve) => { const { port1, port2 } = new MessageChannel(); port2.onmessage = (e) => { resolve(e.data); port2.close(); }; port1.postMessage({ a: new Date(1) }); })
await new Promise((resolve) => setTimeout((a, b) => resolve([a, b]), 1, 1, 2))
typeof setTimeout(() => {}, 0).unref
await new Promise((resolve) => { const seen = []; queueMicrotask(() => seen.push("micro")); setImmediate(() => resolve(seen)); })
typeof performance.now() + typeof performance.timeOrigin
(() => { performance.mark("a"); return performance.measure("m", "a").name; })()
typeof structuredClone + typeof fetch + typeof crypto.subtle + typeof globalThis.global
await fetch("data:text/plain;base64,YWJj").then((it) => it.text())
await fetch("data:text/html,%3Cb%3E").then(async (it) => [it.headers.get("content-type"), await it.text(), it.status])
await fetch("nothing")
await fetch("foo://bar")
await fetch("http://h/", { signal: AbortSignal.abort("stop") })
Buffer.from("aü").toString("base64") + Buffer.from("YcO8", "base64").toString() + Buffer.from("ff00", "hex").length
Buffer.from("a-_b", "base64url").toString("hex") + Buffer.concat([Buffer.from([1]), Buffer.from([2])]).toString("hex")
Buffer.from("aü").toString("latin1") + Buffer.byteLength("ü") + Buffer.isBuffer(Buffer.alloc(1)) + Buffer.from("abc").equals(Buffer.from("abc"))
["YcO8", "YcO8==", " Yc-_8", "Y", "YQ", "YWI=", "YW=I"].map((it) => Buffer.from(it, "base64").toString("hex"))
["YcO8", "Y-_8", "YQ"].map((it) => Buffer.from(it, "base64url").toString("base64url"))
[Buffer.from("héllo").toString("utf8", 1, 3), Buffer.from("hello").toString("hex", 1, 3), Buffer.from("hello").toString(undefined, 2), Buffer.from("hello").toString("base64", -1, 99)]
[Buffer.isEncoding("base64url"), Buffer.isEncoding("UTF-8"), Buffer.isEncoding("x"), Buffer.byteLength("YWI", "base64url"), Buffer.byteLength("€")]
(() => { const b = Buffer.alloc(5); return [b.write("YWJj", 1, "base64url"), b.toString("latin1"), b.write("ü", 3), b.toString("hex")]; })()
Buffer.from("a\ud800").toString("hex") + Buffer.from([256, -1]).toString("hex") + Buffer.from(new Uint8Array([1, 2]).buffer, 1).toString("hex") + Buffer.from(Buffer.from("x")).toString()
Buffer.compare(Buffer.from("a"), Buffer.from("b")) + Buffer.from("abcabc").indexOf("c") + Buffer.from("a").readUInt8(0)
Buffer.from("hello").subarray(1, 3).toString() + JSON.stringify(Buffer.from("a"))
(1234.5).toLocaleString().length > 0
"a".localeCompare("b") + ["b", "a", "c"].sort((a, b) => a.localeCompare(b)).join("")
typeof new Date(0).toLocaleDateString() + typeof new Date(0).toLocaleTimeString() + typeof new Date(0).toLocaleString()
`.split("\n").filter((line) => line !== "" && !line.startsWith("// "));

/** A value as text that tells types apart. An error is its name. */
function show(value, depth = 0) {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return `function ${value.name}`;
  if (typeof value !== "object" || value === null) return String(value);
  if (value instanceof Error || Object.prototype.toString.call(value) === "[object DOMException]") return `error ${value.name}`;
  if (depth > 5) return "…";
  if (Array.isArray(value)) return `[${Array.from(value, (it) => show(it, depth + 1)).join(", ")}]`;
  if (value instanceof Date) return `Date ${value.getTime()}`;
  if (value instanceof RegExp) return String(value);
  if (value instanceof Map || value instanceof Set) return `${value.constructor.name} ${show([...value], depth + 1)}`;
  const tag = Object.prototype.toString.call(value).slice(8, -1);
  return `${tag} {${Object.keys(value).map((key) => `${key}: ${show(value[key], depth + 1)}`).join(", ")}}`;
}

/** Expression and value of each case, as JSON. */
async function results() {
  const AsyncFunction = (async () => {}).constructor;
  const all = [];
  for (const expression of CASES) {
    let result;
    try {
      result = show(await new AsyncFunction(`return ${expression}`)());
    } catch (error) {
      result = `throws ${error?.name ?? show(error)}`;
    }
    all.push([expression, result]);
  }
  return JSON.stringify(all);
}
