// A user with the unchanged npm client while gateways are restarted and policies replaced, under load: the list of events is whole, in
// order, each once, and nothing on the page ever asks for a reload.
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
import { emitter, letIntervalsGo } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { startRelay } from "./lib/relay.js";
import { SseReader } from "./lib/sse.js";
import { inTime, until } from "./lib/until.js";
import { POLICY, policyConfig, seed, SESSION, TOKEN } from "./lib/world.js";

letIntervalsGo();

// A browser that was refused tries again after three seconds.
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
  // The app's own server emits through a gateway that stays.
  const config = policyConfig({ store: redis.url, origin: page.origin });
  const steady = closing.add(await startGateway({ name: "steady", args: ["serve"], config, dir }), (it) => it.stop());
  app = emitter(steady.url, TOKEN);
});

after(() => closing.run());

/** Emits numbered messages on a channel, some thirty a second, until it is stopped; `stop()` gives the numbers. */
function talk(channel) {
  let on = true;
  const talking = (async () => {
    let n = 0;
    while (on) {
      n += 1;
      await app.channel(channel).emit("chat.message", { n, text: `message ${n}` });
      await pause(25);
    }
    return Array.from({ length: n }, (_, index) => index + 1);
  })();
  return {
    stop: () => {
      on = false;
      return talking;
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

/** The user has all of it, once and in order, on a page that shows a connection and never showed that there is none to be had. */
async function sawAll(alice, channel, ns) {
  const seen = async () => (await alice.seen()).map((event) => event.data.n);
  await until(() => `the app sees ${ns.length} on ${channel}`, async () => (await seen()).length >= ns.length, RECONNECT);
  assert.deepEqual(await seen(), ns);
  await until("the app is connected in the end", async () => (await alice.status()) === "connected", RECONNECT);
  assert.ok(!(await alice.statuses()).includes("error"), `${await alice.statuses()}`);
  assert.equal(await alice.page.locator("#seen li").count(), ns.length);
  assert.deepEqual([...new Set(alice.answers)], [200], "no answer but streams");
}

describe("a restart under load", { timeout: 120_000 }, () => {
  const more = 'drain.duration = "1s"';

  test("of two nodes behind a balancer, one after the other", async (t) => {
    const channel = "alice-rolling";
    const config = policyConfig({ store: redis.url, origin: page.origin, more });
    const start = async (name) => closing.add(await startGateway({ name, args: ["serve"], config, dir }), (it) => it.stop());
    const nodes = [await start("one"), await start("two")];
    const balancer = closing.add(await startRelay(nodes.map((node) => node.port)), (it) => it.down());
    const alice = await open(t, balancer.url, channel);
    // Others, so that there is something to let go.
    const others = [];
    for (let n = 0; n < 40; n++) {
      const url = `${balancer.url}/api/realtime?channel=${channel}`;
      others.push(await SseReader.open(url, { headers: { cookie: COOKIE } }));
    }
    t.after(() => others.forEach((other) => other.close()));
    const talking = talk(channel);
    for (const at of [0, 1]) {
      await pause(1_000);
      nodes[at].process.kill("SIGTERM");
      const end = await inTime("the node ends", nodes[at].exited);
      assert.equal(end.code, 0, nodes[at].log());
      nodes[at] = await start(`next-${at}`);
      balancer.target = nodes.map((node) => node.port);
    }
    await pause(1_000);
    await sawAll(alice, channel, await talking.stop());
    assert.ok(alice.answers.length >= 2, "it was asked to come back");
    for (const other of others) assert.equal(other.system("reconnect").length, 1, "and so was everybody else, once");
  });

  test("of the only node, which is away for a while", async (t) => {
    const channel = "alice-alone";
    const config = policyConfig({ store: redis.url, origin: page.origin, more });
    const first = closing.add(await startGateway({ name: "only", args: ["serve"], config, dir }), (it) => it.stop());
    const alice = await open(t, first.url, channel);
    const talking = talk(channel);
    await pause(500);
    first.process.kill("SIGTERM");
    assert.equal((await inTime("the node ends", first.exited)).code, 0, first.log());
    await pause(500);
    const same = config.replace('listen = "127.0.0.1:0"', `listen = "127.0.0.1:${first.port}"`);
    closing.add(await startGateway({ name: "again", args: ["serve"], config: same, dir }), (it) => it.stop());
    await until("the app is here again", () => alice.answers.length >= 2, RECONNECT);
    await pause(500);
    await sawAll(alice, channel, await talking.stop());
  });
});

describe("a new policy", { timeout: 120_000 }, () => {
  let gateway;
  let edition = 0;

  /** The example policy with something in it that changes nothing (a custom section), in place of the one before. */
  async function replace() {
    edition += 1;
    const response = await fetch(`${gateway.control}/v1/policy`, {
      method: "PUT",
      headers: { "content-type": "application/wasm" },
      body: Buffer.concat([readFileSync(POLICY), Buffer.from([0, 3, 1, 0x65, edition])]),
    });
    assert.equal(response.status, 200, await response.text());
  }

  before(async () => {
    // The gateway replaces the file that it has its policy from.
    const policy = join(dir, "policy.wasm");
    copyFileSync(POLICY, policy);
    const config = policyConfig({ store: redis.url, origin: page.origin, policy })
      .replace("[policy]", '[policy]\nrotation-window = "1s"');
    gateway = closing.add(await startGateway({ name: "swapped", args: ["serve"], config, dir }), (it) => it.stop());
  });

  /** Replaces the policy while events run, waiting each time until `rotated(count)`. */
  async function swapTwice(rotated) {
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
    const talking = talk(channel);
    await swapTwice((count) => alice.answers.length > count);
    await sawAll(alice, channel, await talking.stop());
    assert.equal(alice.answers.length, 3, "once a swap");
    const statuses = await alice.statuses();
    assert.ok(statuses.every((status) => ["connected", "connecting", "disconnected"].includes(status)), `${statuses}`);
  });

  test("rotates a plain EventSource, which comes back by itself", async (t) => {
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
    await until("it is open", async () => (await plain()).opens === 1);
    const talking = talk(channel);
    await swapTwice(async (count) => (await plain()).opens > count);
    const ns = await talking.stop();
    await until("it has all", async () => (await plain()).ns.length >= ns.length, RECONNECT);
    assert.deepEqual(await plain(), { ns, opens: 3, closed: false });
  });

  test("closes curl's stream, and the next one goes on behind its last id", async () => {
    const channel = "alice-curl";
    const url = `${gateway.url}/api/realtime?channel=${channel}`;
    let text = "";
    /** Runs curl to the end of its stream. */
    async function follow(headers, begun) {
      const curl = spawn("curl", ["-sN", ...["cookie: " + COOKIE, ...headers].flatMap((header) => ["-H", header]), url]);
      curl.stdout.on("data", (bytes) => {
        text += bytes;
        begun();
      });
      const [code] = await once(curl, "close");
      assert.equal(code, 0, "the stream ended as HTTP says it");
    }
    const numbers = () => [...text.matchAll(/"n":(\d+)/g)].map(([, n]) => Number(n));
    let talking;
    let swapping;
    await follow([], () => {
      if (talking || !text.includes('"connected"')) return;
      talking = talk(channel);
      swapping = pause(500).then(replace);
    });
    await swapping;
    assert.match(text, /"type":"reconnect"/);
    const [id] = text.match(/(?<=^id: ).*$/gm).slice(-1);
    await pause(200);
    const ns = await talking.stop();
    const over = numbers().length;
    assert.ok(over > 0 && over < ns.length, `${over} of ${ns.length} came before`);
    let again;
    await follow([`last-event-id: ${id}`], () => {
      if (numbers().length >= ns.length) again ??= replace();
    });
    await again;
    assert.deepEqual(numbers(), ns);
  });
});
