// Route files as applications write them, built unchanged and asked with their cases; what their errors and their log lines say.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { Closing } from "./lib/closing.js";
import { build, serve, tidegate } from "./lib/policies.js";
import { until } from "./lib/until.js";

const closing = new Closing();
let dir;

before(() => {
  dir = closing.dir();
});

after(() => closing.run());

/** Builds a policy, and returns the component and what the build said. */
function built(path, ...options) {
  const component = join(dir, `${path.replaceAll("/", "-")}.wasm`);
  const { code, stderr } = build(path, component, ...options);
  assert.equal(code, 0, stderr);
  return { component, stderr };
}

for (const [what, route, cases] of [
  ["a route of Next.js gets the request and the modules of Next.js", "next/app/api/realtime/route.ts", "next/cases.toml"],
  ["NODE_ENV is a setting, and production by default", "node-env/route.ts", "node-env/cases.toml"],
]) {
  test(what, () => {
    const { component } = built(route);
    const { code, stdout, stderr } = tidegate("policy", "test", component, cases);
    assert.equal(code, 0, stdout + stderr);
  });
}

test("NODE_ENV of packages is an option of the build, which names them", () => {
  const app = join(dir, "cookies");
  const library = join(app, "node_modules/secure-cookies");
  mkdirSync(library, { recursive: true });
  writeFileSync(join(library, "package.json"), '{ "name": "secure-cookies", "main": "index.js" }');
  writeFileSync(join(library, "index.js"), 'exports.cookieName = (process.env.NODE_ENV === "production" ? "__Secure-" : "") + "app.session";\n');
  writeFileSync(join(app, "package.json"), '{ "main": "policy.js" }');
  writeFileSync(join(app, "policy.js"), 'import { cookieName } from "secure-cookies";\nexport const middleware = () => new Response(cookieName, { status: 403 });\n');
  for (const [options, name] of [[[], "__Secure-app.session"], [["--node-env", "development"], "app.session"]]) {
    const component = join(dir, "cookies.wasm");
    const { code, stderr } = build(app, component, ...options);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /NODE_ENV is "(production|development)" in the code of secure-cookies/);
    const cases = join(dir, "cookies.toml");
    writeFileSync(cases, `[[case]]\nname = "name"\nexpect = { status = 403, body = "${name}" }\n`);
    const { code: tested, stdout } = tidegate("policy", "test", component, cases);
    assert.equal(tested, 0, stdout);
  }
});

test("jose fetches keys from an allowed host", async () => {
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  let requests = 0;
  const server = createServer(async (request, response) => {
    requests++;
    response.writeHead(request.url === "/jwks.json" ? 200 : 404, { "content-type": "application/json" });
    response.end(JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256" }] }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.add(server, (it) => it.close());
  const origin = `http://127.0.0.1:${server.address().port}`;
  const settings = `[policy.settings]
JWKS_URL = "${origin}/jwks.json"
[policy.egress]
hosts = [{ url = "${origin}", allow-private = true }]
`;
  const gateway = await serve(closing, closing.dir(), built("jwks/route.ts").component, settings);
  const sign = (audience, key = privateKey) =>
    new SignJWT({ sub: "alice" }).setProtectedHeader({ alg: "ES256", kid: "k1" }).setIssuer("https://app.example").setAudience(audience).setExpirationTime("1h").sign(key);
  const ask = async (channel, token) => {
    const answer = await fetch(`${gateway.url}/api/realtime?channel=${channel}`, { headers: { authorization: `Bearer ${token}` } });
    await answer.body?.cancel();
    return answer.status;
  };
  const other = (await generateKeyPair("ES256")).privateKey;
  const token = await sign("realtime");
  const statuses = [await ask("alice", token), await ask("bob", token), await ask("alice", await sign("another")), await ask("alice", await sign("realtime", other))];
  assert.deepEqual(statuses, [200, 403, 401, 401]);
  assert.equal(requests, statuses.length);
});

test("console.log shows objects", async () => {
  const gateway = await serve(closing, closing.dir(), built("errors/route.ts").component);
  await fetch(`${gateway.url}/api/realtime?channel=a`);
  await until("the gateway logs the objects", () => /request \{ path: '\/api\/realtime', ids: Map.*'a'.*Set.*1.*, at: .*1970.* \}/.test(gateway.log()));
});

test("an error in a decision names the line of the file", async () => {
  const gateway = await serve(closing, closing.dir(), built("errors/route.ts").component);
  const answer = await fetch(`${gateway.url}/api/realtime?channel=a`, { headers: { "x-session": "{}" } });
  assert.deepEqual([answer.status, await answer.text()], [500, "Internal Server Error"]);
  await until("the gateway logs the error", () => /TypeError: /.test(gateway.log()));
  const log = gateway.log();
  assert.match(log, /\berrors\/lib\/session\.ts:10:\d+/);
  assert.match(log, /\berrors\/route\.ts:7:\d+/);
});

test("an error of top-level code in an instance names the line of the file", async () => {
  const { component, stderr } = built("errors/config.ts");
  assert.match(stderr, /errors\/lib\/hosts\.ts:4: note: top-level code reads process\.env\.HOSTS/);
  const gateway = await serve(closing, closing.dir(), component);
  const answer = await fetch(`${gateway.url}/api/realtime?channel=a`);
  assert.equal(answer.status, 500);
  await until("the gateway logs the error", () => /\berrors\/lib\/hosts\.ts:4:\d+/.test(gateway.log()));
});
