// The status page in a real browser with several nodes, a shadow policy, and a gateway that restarts.
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { launch } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { REPO, startGateway } from "./lib/gateway.js";
import { Resp, startRedis } from "./lib/redis.js";
import { SseReader } from "./lib/sse.js";
import { until } from "./lib/until.js";
import { POLICY, policyConfig, seed, SESSION } from "./lib/example.js";

// It allows every session, including that of Alice, which the active policy rejects.
const SHADOW = join(REPO, "target/guests/rust-session-based.wasm");
// A heartbeat expires after five seconds.
const EXPIRY = { within: 20_000 };

const closing = new Closing();
const nodes = {};
let dir, redis, page;

async function start(name, control = "127.0.0.1:0") {
  const policy = join(dir, `${name}.wasm`);
  const config = policyConfig({ store: redis.url, origin: "http://127.0.0.1", policy, options: `fleet.node-name = "${name}"` });
  const args = ["serve", "--control", control];
  nodes[name] = closing.add(await startGateway({ name, args, config, dir }), (it) => it.kill());
}

before(async () => {
  dir = closing.dir();
  redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  const resp = closing.add(await Resp.open(redis.port), (it) => it.close());
  await seed(resp);
  for (const name of ["gate-1", "gate-2", "gate-3"]) {
    copyFileSync(POLICY, join(dir, `${name}.wasm`));
    await start(name);
  }
  const browser = closing.add(await launch(), (it) => it.close());
  page = await browser.newPage();
  await page.goto(`${nodes["gate-1"].control}/`);
});

after(() => closing.run());

const text = (selector) => page.locator(selector).innerText();
const row = (id, pattern, within) =>
  until(`a row of ${id} like ${pattern}`, async () => (await page.locator(`#${id} tr`).allInnerTexts()).find((it) => pattern.test(it)), within);
const count = (label) => page.locator("#shadow-counts div").filter({ hasText: label }).locator("dd").evaluate((it) => it.firstChild.textContent);

describe("the status page of a fleet", { timeout: 120_000 }, () => {
  test("shows all nodes, and which one has another policy", async () => {
    for (const name of ["gate-1", "gate-2", "gate-3"]) await row("nodes", new RegExp(`^${name}\\s`));
    assert.equal(await page.locator("#nodes .warn").count(), 0);
    // A custom section makes it another component that decides the same.
    writeFileSync(join(dir, "gate-3.wasm"), Buffer.concat([readFileSync(POLICY), Buffer.from([0, 3, 1, 0x78, 0x79])]));
    await row("nodes", /^gate-3\s.*differs from this node/);
    assert.equal(await page.locator("#nodes .warn").count(), 1);
  });

  test("shows the decisions of a shadow policy", async () => {
    assert.equal(await page.locator("#shadow-card").isVisible(), false);
    const body = readFileSync(SHADOW);
    const headers = { "content-type": "application/wasm" };
    const put = await fetch(`${nodes["gate-1"].control}/v1/policy/shadow?share=1`, { method: "PUT", headers, body });
    assert.equal(put.status, 200, await put.text());
    await until("the shadow policy is shown", () => page.locator("#shadow-card").isVisible());
    assert.match(await text("#shadow"), /100 % of clients/);
    for (const [channel, status] of [["alice-1", 200], ["admin-panel", 403]]) {
      const url = `${nodes["gate-1"].url}/api/realtime?channel=${channel}`;
      const stream = await SseReader.open(url, { headers: { cookie: `session=${SESSION.alice}` } });
      assert.equal(stream.status, status);
      stream.close();
    }
    await until("the change is counted", async () => (await count("Reject → allow")) === "1" && (await count("Same decision")) === "1");
    assert.equal(await count("Allow → reject"), "0");
  });

  test("removes a node whose heartbeat has expired", async () => {
    await nodes["gate-2"].kill();
    await until("the node is removed", async () => !(await text("#nodes")).includes("gate-2"), EXPIRY);
    assert.match(await text("#nodes"), /gate-3/);
  });

  test("recovers when its gateway restarts", async () => {
    await nodes["gate-1"].kill();
    await until("an error message is shown", async () => /does not answer/.test(await text("#error")));
    await start("gate-1", new URL(nodes["gate-1"].control).host);
    await until("the node is shown as ready", async () => (await text("#state")).includes("ready"), EXPIRY);
    assert.equal(await page.locator("#banner").isVisible(), false);
    // The shadow policy belonged to the previous process.
    await until("no shadow policy is shown", async () => !(await page.locator("#shadow-card").isVisible()));
  });
});
