// Route files of @upstash/realtime as policies: their decisions on Node and in the gateway, compared answer by answer.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import { exportSPKI, generateKeyPair, SignJWT } from "jose";
import { Closing } from "./lib/closing.js";
import { toml } from "./lib/gateway.js";
import { unrefIntervals } from "./lib/npm.js";
import { build, ROUTES, serve } from "./lib/policies.js";
import { until } from "./lib/until.js";

const AUDIENCE = "the-app";

const closing = new Closing();
let dir;

before(() => {
  dir = closing.dir();
});

after(() => closing.run());

// Headers of the gateway, or of the connection.
const NOT_COMPARED = /^(access-control-.*|connection|content-length|date|keep-alive|transfer-encoding|vary|x-accel-buffering)$/;

/** The parts of an answer that must be the same. */
async function comparedParts(response) {
  if (response.headers.get("content-type") === "text/event-stream") {
    await response.body?.cancel();
    return { stream: true };
  }
  const headers = [...response.headers].filter(([name]) => !NOT_COMPARED.test(name));
  return { status: response.status, headers, body: Buffer.from(await response.arrayBuffer()).toString("latin1") };
}

describe("a route file", () => {
  let gateway;
  let options;
  let onNode;
  let built;
  let server;
  const component = () => join(dir, "app.wasm");

  before(async () => {
    built = build("app/app/api/realtime/route.ts", component());
    assert.equal(built.code, 0, built.stderr);
    server = createServer(async (request, response) => {
      const parts = [];
      for await (const part of request) parts.push(part);
      response.writeHead(201, { "x-answer": "yes", "content-type": "application/json" });
      response.end(JSON.stringify([request.method, request.headers["x-from"], Buffer.concat(parts).toString()]));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    closing.add(server, (it) => it.close());
    options = `[policy.settings]
AUDIENCE = ${toml(AUDIENCE)}
[policy.egress]
hosts = [{ url = "http://127.0.0.1:${server.address().port}", allow-private = true }]
`;
    gateway = await serve(closing, dir, component(), options);

    unrefIntervals();
    Object.assign(process.env, { AUDIENCE, NODE_ENV: "production", UPSTASH_REDIS_REST_URL: "http://127.0.0.1:1", UPSTASH_REDIS_REST_TOKEN: "t" });
    const outfile = join(ROUTES, "../node_modules/.cache/route.mjs");
    await esbuild.build({
      entryPoints: [join(ROUTES, "app/app/api/realtime/route.ts")],
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
      outfile,
    });
    onNode = (await import(pathToFileURL(outfile).href)).GET;
  });

  const request = (name, { headers = {}, path = "/api/realtime?channel=a", node = gateway } = {}) =>
    fetch(node.url + path, { headers: { "x-case": name, ...headers }, redirect: "manual" });

  /** The answer of the route file on Node. A handler that throws, or that returns no response, is a 500. */
  async function answerOnNode(name, { headers = {}, path = "/api/realtime?channel=a" } = {}) {
    const abort = new AbortController();
    const host = new URL(gateway.url).host;
    const onNodeRequest = new Request(gateway.url + path, { headers: { "x-case": name, host, ...headers }, signal: abort.signal });
    try {
      return await comparedParts(await onNode(onNodeRequest));
    } catch {
      return { status: 500 };
    } finally {
      abort.abort();
    }
  }

  /** A rejection as the gateway sends it: no cache stores it, unless the policy says otherwise. */
  function asSent(answer) {
    if (!answer.headers || answer.headers.some(([name]) => name === "cache-control")) return answer;
    const headers = [...answer.headers, ["cache-control", "no-store"]].sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
    return { ...answer, headers };
  }

  async function assertSame(name, options) {
    const [ours, theirs] = [await comparedParts(await request(name, options)), await answerOnNode(name, options)];
    if (theirs.status === 500) assert.equal(ours.status, 500, name);
    else assert.deepEqual(ours, asSent(theirs), name);
    return ours;
  }

  test("makes the same decisions as on Node", async () => {
    const { cases } = await casesOfApp();
    const testedSeparately = new Set(["fewer channels", "own", "env", "fetch", "logs", "token"]);
    const different = [];
    for (const name of Object.keys(cases).filter((name) => !testedSeparately.has(name))) {
      await assertSame(name).catch((error) => different.push(error.message));
    }
    assert.deepEqual(different, []);
  });

  test("receives the same request as on Node", async () => {
    const headers = { cookie: "a=b; session=x%20y; a=c", authorization: "Bearer t", "x-twice": "1, 2", "x-empty": "" };
    for (const path of ["/api/realtime", "/api/realtime?channel=a&channel=b&channel=a", "/api/realtime?channel=&x=%C3%BC+1&channel=a%26b"]) {
      await assertSame("request", { headers, path });
    }
  });

  test("allows the remaining channels", async () => {
    assert.deepEqual(await assertSame("fewer channels", { path: "/api/realtime?channel=a&channel=b" }), { stream: true });
    assert.equal((await request("fewer channels")).status, 500);
  });

  test("hides the cause of an error from clients, and logs it", async () => {
    const answer = await request("throws");
    assert.equal(await answer.text(), "Internal Server Error");
    await until("the gateway logs the error", () => /hunter2/.test(gateway.log()));
    await request("logs");
    await until("the gateway logs the line", () => /look: here \{ a: \[ 1 \] \}/.test(gateway.log()));
  });

  test("verifies tokens with jose", async () => {
    for (const alg of ["RS256", "PS256", "ES256", "EdDSA"]) {
      const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
      const sign = (claims, audience) => new SignJWT(claims).setProtectedHeader({ alg }).setAudience(audience).setExpirationTime("1h").sign(privateKey);
      const key = btoa(await exportSPKI(publicKey));
      const good = await sign({ sub: "alice", roles: ["admin"] }, AUDIENCE);
      const tokens = [good, good.slice(0, -9) + "AAAAAAAAA", await sign({ sub: "alice" }, "another"), await sign({ sub: "", roles: ["king"] }, AUDIENCE)];
      for (const [at, token] of tokens.entries()) {
        const answer = await assertSame("token", { headers: { "x-token": token, "x-key": key, "x-alg": alg } });
        assert.equal(answer.status, at === 0 ? 403 : 401, `${alg} ${at}: ${answer.body}`);
      }
    }
  });

  test("fetches from allowed hosts only", async () => {
    const url = `http://127.0.0.1:${server.address().port}/check`;
    await assertSame("fetch", { headers: { "x-url": url } });
    for (const method of ["GET", "POST"]) {
      const refused = await request("fetch", { headers: { "x-url": "http://127.0.0.1:1/", "x-method": method } });
      assert.deepEqual([refused.status, await refused.json()], [502, ["TypeError"]], method);
    }
  });

  test("has settings, randomness and the clock of each instance on each node, and none of the build machine", async () => {
    const other = await serve(closing, closing.dir(), component(), options);
    const nodes = [gateway, other, gateway, other];
    const instances = await Promise.all(nodes.map(async (node) => (await request("own", { node })).json()));
    for (const pick of [(it) => it.random, (it) => it.uuid, (it) => it.born.random, (it) => it.born.uuid, (it) => it.bytes.join()]) {
      assert.equal(new Set(instances.map(pick)).size, instances.length, String(pick));
    }
    for (const { audience, born, now } of instances) {
      assert.equal(audience, AUDIENCE);
      assert.ok(Math.abs(Date.now() - born.at) < 60_000 && Math.abs(Date.now() - now) < 60_000);
    }
    const env = async (name) => (await request("env", { headers: { "x-name": name } })).json();
    assert.deepEqual(await env("AUDIENCE"), [AUDIENCE, true, "production", null]);
    assert.deepEqual(await env("PATH"), [null, false, "production", null]);
    assert.ok(!readFileSync(component()).includes("of-the-build-machine"));
  });

  test("build reports the code that every instance evaluates", () => {
    assert.match(built.stderr, /app\/lib\/config\.ts:2: note: top-level code reads process\.env\.AUDIENCE: evaluated in every instance/);
    assert.match(built.stderr, /app\/lib\/config\.ts:3: note: top-level code reads Math\.random\(\), crypto\.randomUUID\(\), Date\.now\(\)/);
    assert.match(built.stderr, /app\/lib\/realtime\.ts:5: note: top-level code reads process\.env\.UPSTASH_REDIS_REST_URL/);
    assert.doesNotMatch(built.stderr, /warning|error/);
  });

  /** Compiles and imports the module with the cases. */
  async function casesOfApp() {
    const outfile = join(ROUTES, "../node_modules/.cache/cases.mjs");
    await esbuild.build({ entryPoints: [join(ROUTES, "app/lib/cases.ts")], bundle: true, platform: "node", format: "esm", packages: "external", outfile });
    return import(pathToFileURL(outfile).href);
  }
});

test("a middleware in JavaScript with top-level await is built", async () => {
  const output = join(dir, "plain.wasm");
  const { code, stderr } = build("plain", output);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /plain\/policy\.js: note: there is `await` at top level/);
  const gateway = await serve(closing, dir, output, '[policy.settings]\nGREETING = "sorry"\n');
  const decide = async (channel) => comparedParts(await fetch(`${gateway.url}/api/realtime?channel=${channel}`));
  assert.deepEqual(await decide("open"), { stream: true });
  const { status, body } = await decide("shut");
  assert.deepEqual([status, body], [403, "sorry, no"]);
  const next = await fetch(`${gateway.url}/api/realtime?channel=next`, { headers: { cookie: "name=a; name=Zo%C3%AB; b=%", "x-a": "1" } });
  assert.deepEqual([next.status, next.headers.get("x-b"), await next.json()], [403, "1", ["Zoë", false, "1", 1]]);
});

test("build errors are reported with file and line", () => {
  for (const [file, pattern] of [
    ["node.ts", /mistakes\/node\.ts:1: error: "node:fs" is a module of Node, and a policy does not run on Node: .*process\.env/],
    ["unresolved.ts", /mistakes\/unresolved\.ts:1: error: Could not resolve "@\/lib\/nowhere"/],
    ["syntax.ts", /mistakes\/syntax\.ts:2: error: Unexpected ";"/],
    ["throws.ts", /mistakes\/throws\.ts:1: error: top-level code failed: SyntaxError: /],
    ["missing.ts", /missing\.ts: No such file/],
    ["secret.ts", /secret\.ts:1: warning: this looks like a secret[^]*secret\.ts:2: warning: this looks like a token of GitHub[^]*top-level code failed/],
    ["no-export.ts", /mistakes\/no-export\.ts: error: a policy exports GET/],
  ]) {
    const output = join(dir, "none.wasm");
    const { code, stderr } = build(`mistakes/${file}`, output);
    assert.deepEqual([code, existsSync(output)], [1, false], stderr);
    assert.match(stderr, pattern);
  }
});
