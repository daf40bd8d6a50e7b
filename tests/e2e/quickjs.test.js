// A component as another toolchain leaves it: QuickJS with all of its WASI imports, none of which Tidegate stands behind.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Closing } from "./lib/closing.js";
import { REPO, startGateway } from "./lib/gateway.js";

const POLICY = `
  export const authorizer = {
    authorize(request, channels) {
      if (channels.includes("random")) {
        return { subject: String(Math.random()), channels: null, expiresAt: null, headers: [] };
      }
      throw { payload: { status: 403, headers: [], body: Uint8Array.from([110, 111]) } };
    },
  };
`;

const closing = new Closing();
let gateway;

before(async () => {
  const dir = closing.dir();
  const [source, component] = [join(dir, "policy.js"), join(dir, "policy.wasm")];
  writeFileSync(source, POLICY);
  const build = ["componentize-qjs", "--sync", "--wit", join(REPO, "wit"), "--js", source, "-o", component];
  execFileSync("npx", build, { cwd: join(REPO, "tests/e2e"), stdio: "pipe" });
  const args = ["serve", "--store", "memory:", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--policy", component];
  gateway = closing.add(await startGateway({ args }), (it) => it.stop());
});

after(() => closing.run());

test("it loads, allows and rejects", async () => {
  const allowed = await fetch(`${gateway.url}/api/realtime?channel=random`);
  assert.equal(allowed.status, 200);
  await allowed.body.cancel();
  const rejected = await fetch(`${gateway.url}/api/realtime?channel=other`);
  assert.equal(rejected.status, 403);
  assert.equal(await rejected.text(), "no");
});
