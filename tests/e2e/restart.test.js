// The unchanged npm client during restarts and activations under load: the page shows each event once and in order, and never an error.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { launch, servePage, visit } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { startGateway } from "./lib/gateway.js";
import { emitter, unrefIntervals } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { startRelay } from "./lib/relay.js";
import { SseReader } from "./lib/sse.js";
import { inTime, until } from "./lib/until.js";
import { POLICY, policyConfig, seed, SESSION, TOKEN } from "./lib/example.js";

unrefIntervals();

// A browser retries a refused connection after three seconds.
const RECONNECT = { within: 25_000 };
const COOKIE = `session=${SESSION.alice}`;

const closing = new Closing();
let dir, redis, page, browser, app;

before(async () => {
  dir = closing.dir();
  redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  const resp = closing.add(await Resp.open(redis.port), (it) => it.close());
  await seed(resp);
  page = closing.add(await servePage(), (it) => it.stop());
  browser = closing.add(await launch(), (it) => it.close());
  // The app's server emits through a gateway that is not restarted.
  const config = policyConfig({ store: redis.url, origin: page.origin });
  const steady = closing.add(await startGateway({ name: "steady", args: ["serve"], config, dir }), (it) => it.stop());
  app = emitter(steady.url, TOKEN);
});

after(() => closing.run());

/** Emits numbered messages on a channel, about thirty per second, until `stop()`, which returns the numbers. */
function startEmitting(channel) {
  let running = true;
  const emitting = (async () => {
    let n = 0;
    while (running) {
      n += 1;
      await app.channel(channel).emit("chat.message", { n, text: `message ${n}` });
      await pause(25);
    }
    return Array.from({ length: n }, (_, index) => index + 1);
  })();
  return {
    stop: () => {
      running = false;
      return emitting;
    },
  };
}

/** Opens the app as Alice. */
async function open(t, base, channel) {
  const alice = await visit(browser, page.origin, { api: `${base}/api/realtime`, channels: [channel], session: SESSION.alice });
  t.after(() => alice.close());
  await until("the app is connected", async () => (await alice.status()) === "connected", RECONNECT);
  return alice;
}

/** Asserts that the page shows each message once and in order, is connected, and never showed an error. */
async function assertReceivedAll(alice, channel, ns) {
  const received = async () => (await alice.received()).map((event) => event.data.n);
  await until(() => `the app receives ${ns.length} on ${channel}`, async () => (await received()).length >= ns.length, RECONNECT);
  assert.deepEqual(await received(), ns);
  await until("the app is connected at the end", async () => (await alice.status()) === "connected", RECONNECT);
  assert.ok(!(await alice.statuses()).includes("error"), `${await alice.statuses()}`);
  assert.equal(await alice.page.locator("#received li").count(), ns.length);
  assert.deepEqual([...new Set(alice.answers)], [200], "all answers are streams");
}

describe("a restart under load", { timeout: 120_000 }, () => {
  const options = 'drain.duration = "1s"';

  test("of two nodes behind a load balancer, one after the other", async (t) => {
    const channel = "alice-rolling";
    const config = policyConfig({ store: redis.url, origin: page.origin, options });
    const start = async (name) => closing.add(await startGateway({ name, args: ["serve"], config, dir }), (it) => it.stop());
    const nodes = [await start("one"), await start("two")];
    const balancer = closing.add(await startRelay(nodes.map((node) => node.port)), (it) => it.down());
    const alice = await open(t, balancer.url, channel);
    // More streams, which the drain closes.
    const others = [];
    for (let n = 0; n < 40; n++) {
      const url = `${balancer.url}/api/realtime?channel=${channel}`;
      others.push(await SseReader.open(url, { headers: { cookie: COOKIE } }));
    }
    t.after(() => others.forEach((other) => other.close()));
    const emitting = startEmitting(channel);
    for (const at of [0, 1]) {
      await pause(1_000);
      nodes[at].process.kill("SIGTERM");
      const end = await inTime("the node ends", nodes[at].exited);
      assert.equal(end.code, 0, nodes[at].log());
      nodes[at] = await start(`next-${at}`);
      balancer.target = nodes.map((node) => node.port);
    }
    await pause(1_000);
    await assertReceivedAll(alice, channel, await emitting.stop());
    assert.ok(alice.answers.length >= 2, "the app's stream was rotated");
    for (const other of others) assert.equal(other.system("reconnect").length, 1, "each other stream was rotated once");
  });

  test("of the only node, with a short outage", async (t) => {
    const channel = "alice-alone";
    const config = policyConfig({ store: redis.url, origin: page.origin, options });
    const first = closing.add(await startGateway({ name: "only", args: ["serve"], config, dir }), (it) => it.stop());
    const alice = await open(t, first.url, channel);
    const emitting = startEmitting(channel);
    await pause(500);
    first.process.kill("SIGTERM");
    assert.equal((await inTime("the node ends", first.exited)).code, 0, first.log());
    await pause(500);
    const samePort = config.replace('listen = "127.0.0.1:0"', `listen = "127.0.0.1:${first.port}"`);
    closing.add(await startGateway({ name: "again", args: ["serve"], config: samePort, dir }), (it) => it.stop());
    await until("the app has reconnected", () => alice.answers.length >= 2, RECONNECT);
    await pause(500);
    await assertReceivedAll(alice, channel, await emitting.stop());
  });
});

describe("a new policy", { timeout: 120_000 }, () => {
  let gateway;
  let version = 0;

  /** Activates the example policy with another custom section, which changes only its digest. */
  async function replace() {
    version += 1;
    const response = await fetch(`${gateway.control}/v1/policy`, {
      method: "PUT",
      headers: { "content-type": "application/wasm" },
      body: Buffer.concat([readFileSync(POLICY), Buffer.from([0, 3, 1, 0x65, version])]),
    });
    assert.equal(response.status, 200, await response.text());
  }

  before(async () => {
    // The gateway replaces its policy file.
    const policy = join(dir, "policy.wasm");
    copyFileSync(POLICY, policy);
    const config = policyConfig({ store: redis.url, origin: page.origin, policy })
      .replace("[policy]", '[policy]\nrotation-window = "1s"');
    gateway = closing.add(await startGateway({ name: "rotated", args: ["serve"], config, dir }), (it) => it.stop());
  });

  /** Activates a policy twice while events are emitted, and waits each time for `rotated(count)`. */
  async function activateTwice(rotated) {
    for (const count of [1, 2]) {
      await pause(500);
      await replace();
      await until(`rotation ${count}`, () => rotated(count), RECONNECT);
    }
    await pause(500);
  }

  test("rotates the stock client", async (t) => {
    const channel = "alice-rotated";
    const alice = await open(t, gateway.url, channel);
    const emitting = startEmitting(channel);
    await activateTwice((count) => alice.answers.length > count);
    await assertReceivedAll(alice, channel, await emitting.stop());
    assert.equal(alice.answers.length, 3, "one more stream for each activation");
    const statuses = await alice.statuses();
    assert.ok(statuses.every((status) => ["connected", "connecting", "disconnected"].includes(status)), `${statuses}`);
  });

  test("rotates a plain EventSource, which reconnects by itself", async (t) => {
    const channel = "alice-plain";
    const alice = await open(t, gateway.url, "alice-elsewhere");
    await alice.page.evaluate((url) => {
      window.__plain = { ns: [], opens: 0, closed: false };
      const source = new EventSource(url, { withCredentials: true });
      source.onopen = () => (window.__plain.opens += 1);
      source.onerror = () => (window.__plain.closed ||= source.readyState === EventSource.CLOSED);
      source.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.event) window.__plain.ns.push(frame.data.n);
      };
    }, `${gateway.url}/api/realtime?channel=${channel}`);
    const plain = () => alice.page.evaluate(() => window.__plain);
    await until("the EventSource is open", async () => (await plain()).opens === 1);
    const emitting = startEmitting(channel);
    await activateTwice(async (count) => (await plain()).opens > count);
    const ns = await emitting.stop();
    await until("the EventSource has all events", async () => (await plain()).ns.length >= ns.length, RECONNECT);
    assert.deepEqual(await plain(), { ns, opens: 3, closed: false });
  });

  test("closes curl's stream, and the next request resumes after its last id", async () => {
    const channel = "alice-curl";
    const url = `${gateway.url}/api/realtime?channel=${channel}`;
    let text = "";
    /** Runs curl to the end of its stream. */
    async function follow(headers, onData) {
      const curl = spawn("curl", ["-sN", ...["cookie: " + COOKIE, ...headers].flatMap((header) => ["-H", header]), url]);
      curl.stdout.on("data", (bytes) => {
        text += bytes;
        onData();
      });
      const [code] = await once(curl, "close");
      assert.equal(code, 0, "the stream ended with a last chunk");
    }
    const numbers = () => [...text.matchAll(/"n":(\d+)/g)].map(([, n]) => Number(n));
    let emitting;
    let activating;
    await follow([], () => {
      if (emitting || !text.includes('"connected"')) return;
      emitting = startEmitting(channel);
      activating = pause(500).then(replace);
    });
    await activating;
    assert.match(text, /"type":"reconnect"/);
    const [id] = text.match(/(?<=^id: ).*$/gm).slice(-1);
    await pause(200);
    const ns = await emitting.stop();
    const receivedFirst = numbers().length;
    assert.ok(receivedFirst > 0 && receivedFirst < ns.length, `${receivedFirst} of ${ns.length} messages before the first stream ended`);
    let secondActivation;
    await follow([`last-event-id: ${id}`], () => {
      if (numbers().length >= ns.length) secondActivation ??= replace();
    });
    await secondActivation;
    assert.deepEqual(numbers(), ns);
  });
});
