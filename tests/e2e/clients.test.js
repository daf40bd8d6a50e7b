// Clients that people use, each as its documents show it: `connected`, events, every message JSON, and no event lost or repeated when the
// connection breaks.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { EventSource } from "eventsource";
import { launch, servePage } from "./lib/browser.js";
import { Child } from "./lib/child.js";
import { Closing } from "./lib/closing.js";
import { startAllowAll } from "./lib/example.js";
import { REPO } from "./lib/gateway.js";
import { startRedis } from "./lib/redis.js";
import { startRelay } from "./lib/relay.js";
import { until } from "./lib/until.js";

/** `cargo xtask clients` makes these. */
const PYTHON = join(REPO, "target/toolchains/httpx-sse/bin/python");
const R3LABS = join(REPO, "target/tmp/r3labs-sse");

// The gateway asks for one to three seconds, and some clients wait longer after each failure.
const RECONNECT = { within: 25_000 };

const closing = new Closing();
let browser, page, gateway;

before(async () => {
  const dir = closing.dir();
  const redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  gateway = await startAllowAll(closing, { store: redis.url, dir });
  page = closing.add(await servePage("clients.js"), (it) => it.stop());
  browser = closing.add(await launch(), (it) => it.close());
});

after(() => closing.run());

async function emit(channel, from, to = from) {
  for (let n = from; n <= to; n++) {
    const body = JSON.stringify({ channel, event: "n", data: n });
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${gateway.control}/v1/emit`, { method: "POST", headers, body });
    assert.equal(response.status, 200);
  }
}

/** Runs a client that `open` starts with a URL. `open` returns a function for the messages so far, parsed, and what `cut` does to it. */
async function follow(t, name, open) {
  const channel = `client ${name}`;
  const relay = await startRelay(gateway.port);
  t.after(() => relay.down());
  const { messages, reopen = () => {} } = await open(`${relay.url}/api/realtime?channel=${encodeURIComponent(channel)}`);
  const numbers = async () => (await messages()).filter((message) => message.event === "n").map((message) => message.data);
  const reaches = async (n, options) => {
    const missing = async () => (await numbers()).includes(n);
    await until(() => `${name} receives ${n}`, missing, options);
  };

  await until(`${name} is connected`, async () => (await messages()).some((message) => message.type === "connected"));
  await emit(channel, 1, 3);
  await reaches(3);
  await relay.down();
  await emit(channel, 4, 6);
  await relay.up();
  await reopen();
  await reaches(6, RECONNECT);
  await emit(channel, 7);
  await reaches(7);
  assert.deepEqual(await numbers(), [1, 2, 3, 4, 5, 6, 7]);
  const types = new Set((await messages()).map((message) => message.type ?? message.event));
  assert.deepEqual(types, new Set(["connected", "n"]), "no gap, and nothing that is not a frame");
}

/** The messages of a program that prints the data of each as a JSON string on a line. */
function printed(t, name, file, args) {
  assert.ok(existsSync(file), `${file} is missing: run \`cargo xtask clients\``);
  const child = new Child(name, file, args);
  t.after(() => child.kill());
  return { messages: () => child.stdout.map((line) => JSON.parse(JSON.parse(line))) };
}

describe("a client resumes without loss", { concurrency: true, timeout: 60_000 }, () => {
  for (const name of ["EventSource", "event-source-polyfill", "fetch-event-source"]) {
    test(`${name} in a browser`, (t) =>
      follow(t, name, async (url) => {
        const context = await browser.newContext();
        t.after(() => context.close());
        const tab = await context.newPage();
        const errors = [];
        tab.on("pageerror", (error) => errors.push(String(error)));
        await tab.goto(page.origin);
        await tab.evaluate(([kind, target]) => window.__open[kind](target), [name, url]);
        return {
          async messages() {
            assert.deepEqual([...errors, ...(await tab.evaluate(() => window.__errors))], []);
            return tab.evaluate(() => window.__messages);
          },
        };
      }));
  }

  test("eventsource in Node", (t) =>
    follow(t, "eventsource", async (url) => {
      const source = new EventSource(url);
      t.after(() => source.close());
      const data = [];
      source.onmessage = (message) => data.push(message.data);
      return { messages: () => data.map((text) => JSON.parse(text)) };
    }));

  test("httpx-sse in Python", (t) =>
    follow(t, "httpx-sse", async (url) => {
      const script = fileURLToPath(new URL("clients/httpx/client.py", import.meta.url));
      return printed(t, "httpx-sse", PYTHON, [script, url]);
    }));

  test("r3labs/sse in Go", (t) => follow(t, "r3labs", async (url) => printed(t, "r3labs", R3LABS, [url])));

  // It prints what arrives. A script resumes with the last id.
  test("curl", (t) =>
    follow(t, "curl", async (url) => {
      const children = [];
      const start = (...headers) => {
        const child = new Child("curl", "curl", ["--silent", "--no-buffer", ...headers, url]);
        t.after(() => child.kill());
        children.push(child);
      };
      const lines = () => children.flatMap((child) => child.stdout);
      const fields = (name) => lines().filter((line) => line.startsWith(name)).map((line) => line.slice(name.length));
      start();
      return {
        messages() {
          const blocks = lines().join("\n").split("\n\n").slice(0, -1);
          for (const block of blocks) assert.match(block, /^data: /m);
          return fields("data: ").map((data) => JSON.parse(data));
        },
        reopen: () => start("--header", `Last-Event-ID: ${fields("id: ").at(-1)}`),
      };
    }));
});
