// A component of another toolchain: QuickJS with all of its WASI imports, which Tidegate stubs.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Closing } from "./lib/closing.js";
import { REPO, startGateway } from "./lib/gateway.js";
import { until } from "./lib/until.js";

/** A policy that allows one channel, and rejects all others with this body. */
const policy = (channel, body) => `
  const bytes = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  export const authorizer = {
    authorize(request, channels) {
      if (channels.includes(${JSON.stringify(channel)})) {
        return { subject: String(Math.random()), channels: null, expiresAt: null, headers: [] };
      }
      throw { payload: { status: 403, headers: [], body: bytes(${JSON.stringify(body)}) } };
    },
  };
`;

const closing = new Closing();
let dir;

before(() => {
  dir = closing.dir();
});

after(() => closing.run());

function build(name, source) {
  const [input, output] = [join(dir, `${name}.js`), join(dir, `${name}.wasm`)];
  writeFileSync(input, source);
  const args = ["componentize-qjs", "--sync", "--wit", join(REPO, "wit"), "--js", input, "-o", output];
  execFileSync("npx", args, { cwd: join(REPO, "tests/e2e"), stdio: "pipe" });
  return output;
}

async function decide(gateway, channel) {
  const answer = await fetch(`${gateway.url}/api/realtime?channel=${channel}`);
  if (answer.status !== 200) return `${answer.status} ${await answer.text()}`;
  await answer.body.cancel();
  return "200";
}

const PORTS = ["--store", "memory:", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"];

test("QuickJS component allows and rejects", async () => {
  const component = build("first", policy("here", "no"));
  const gateway = closing.add(await startGateway({ args: ["serve", ...PORTS, "--policy", component] }), (it) => it.stop());
  assert.equal(await decide(gateway, "here"), "200");
  assert.equal(await decide(gateway, "there"), "403 no");
});

test("dev activates a changed policy file, and an invalid file changes nothing", async () => {
  const component = build("watched", policy("here", "old"));
  const other = build("other", policy("there", "new"));
  const gateway = closing.add(await startGateway({ args: ["dev", ...PORTS, "--policy", component] }), (it) => it.stop());
  assert.equal(await decide(gateway, "there"), "403 old");
  copyFileSync(other, component);
  await until("the new policy decides", async () => (await decide(gateway, "here")) === "403 new");
  assert.equal(await decide(gateway, "there"), "200");
  writeFileSync(component, "invalid");
  await until("the log reports the failed activation", () => gateway.log().includes("policy activation failed"));
  assert.equal(await decide(gateway, "here"), "403 new");
  // Many tools replace a file like this: they write another file, then rename it over the old one.
  writeFileSync(join(dir, "policy.new"), readFileSync(build("third", policy("here", "third"))));
  renameSync(join(dir, "policy.new"), component);
  await until("the third policy decides", async () => (await decide(gateway, "there")) === "403 third");
});
