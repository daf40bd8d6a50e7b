// The unchanged npm package, its client half in a real browser and its server half, with `tidegate serve`, Redis and the example policy.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { CursorUnavailableError } from "@upstash/realtime";
import { launch, servePage, visit } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { startGateway } from "./lib/gateway.js";
import { emitter, unrefIntervals } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { startRelay } from "./lib/relay.js";
import { SseReader } from "./lib/sse.js";
import { inTime, until } from "./lib/until.js";
import { policyConfig, seed, SESSION, TOKEN } from "./lib/example.js";

unrefIntervals();

// A browser retries a lost stream after three seconds, more than once while the port is closed.
const RECONNECT = { within: 25_000 };

const closing = new Closing();
let dir, redis, resp, page, browser, gateway, app;

/** Starts a gateway with the suite's configuration. */
async function serve(name) {
  const config = policyConfig({ store: redis.url, origin: page.origin });
  const started = await startGateway({ name, args: ["serve"], config, dir });
  return closing.add(started, (it) => it.stop());
}

/** Opens the app with the session of the user `as`, for the gateway at `base`, and closes it when the test ends. */
async function open(t, { base = gateway.url, as, channels }) {
  const visitor = await visit(browser, page.origin, { api: `${base}/api/realtime`, channels, session: SESSION[as] });
  t.after(() => visitor.close());
  return visitor;
}

async function connected(visitor, options) {
  await until(
    () => `the app is connected; console: ${visitor.console.join(" | ")}`,
    async () => (await visitor.status()) === "connected",
    options,
  );
}

/** The numbers of the messages that the app received on a channel. */
async function numbers(visitor, channel) {
  return (await visitor.received()).filter((event) => event.channel === channel).map((event) => event.data.n);
}

async function waitForNumber(visitor, channel, n, options) {
  await until(`the app receives ${n} on ${channel}`, async () => (await numbers(visitor, channel)).includes(n), options);
}

/** Emits messages numbered `from` to `to`, with the npm package. */
async function emitNumbers(channel, from, to = from, realtime = app) {
  for (let n = from; n <= to; n++) await realtime.channel(channel).emit("chat.message", { n, text: `message ${n}` });
}

function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

before(async () => {
  dir = closing.dir();
  redis = closing.add(await startRedis({ dir, options: { appendonly: "yes" } }), (it) => it.stop());
  resp = closing.add(await Resp.open(redis.port), (it) => it.close());
  await seed(resp);
  page = closing.add(await servePage(), (it) => it.stop());
  browser = closing.add(await launch(), (it) => it.close());
  gateway = await serve("gateway");
  app = emitter(gateway.url, TOKEN);
});

after(() => closing.run());

describe("the React client", { timeout: 120_000 }, () => {
  test("connects and receives", async (t) => {
    const alice = await open(t, { as: "alice", channels: ["team-red"] });
    await connected(alice);
    await emitNumbers("team-red", 1, 3);
    await waitForNumber(alice, "team-red", 3);
    assert.deepEqual(await alice.received(), [1, 2, 3].map((n) => ({
      event: "chat.message",
      channel: "team-red",
      data: { n, text: `message ${n}` },
    })));
    assert.equal(await alice.page.locator("#status").textContent(), "connected");
    assert.equal(await alice.page.locator("#received li").count(), 3);
  });

  test("receives on several channels at once", async (t) => {
    const alice = await open(t, { as: "alice", channels: ["default", "alice-inbox", "team-red"] });
    await connected(alice);
    for (const channel of ["default", "alice-inbox", "team-red"]) await emitNumbers(channel, 11, 12);
    for (const channel of ["default", "alice-inbox", "team-red"]) {
      await waitForNumber(alice, channel, 12);
      assert.deepEqual(await numbers(alice, channel), [11, 12], channel);
    }
  });

  test("switches channels", async (t) => {
    const alice = await open(t, { as: "alice", channels: ["team-red"] });
    await connected(alice);
    await emitNumbers("team-red", 21);
    await waitForNumber(alice, "team-red", 21);

    const requested = alice.page.waitForRequest((request) => request.url().includes("channel=alice-switched"));
    await alice.setChannels(["alice-switched"]);
    await inTime("the app requests its new channel", requested);
    await connected(alice);
    await emitNumbers("alice-switched", 22);
    await waitForNumber(alice, "alice-switched", 22);
    await emitNumbers("team-red", 23);
    await emitNumbers("alice-switched", 24);
    await waitForNumber(alice, "alice-switched", 24);
    assert.deepEqual(await numbers(alice, "alice-switched"), [22, 24]);
    assert.deepEqual(await numbers(alice, "team-red"), [21]);
  });

  test("is rejected without a known session", async (t) => {
    const mallory = await open(t, { as: "mallory", channels: ["team-red"] });
    // The stock client retries; it must receive the same answer each time.
    await until("two rejections", () => mallory.answers.length >= 2);
    await emitNumbers("team-red", 31);
    await until("one more rejection", () => mallory.answers.length >= 3);
    assert.deepEqual([...new Set(mallory.answers)], [401]);
    assert.deepEqual(await mallory.received(), []);
    assert.ok(!(await mallory.statuses()).includes("connected"), `${await mallory.statuses()}`);

    // An EventSource cannot read the rejection; a fetch of the same page can, as CORS headers are on rejections, too.
    const answer = await mallory.page.evaluate(async (url) => {
      const response = await fetch(url, { credentials: "include" });
      return { status: response.status, type: response.headers.get("content-type"), body: await response.text() };
    }, `${gateway.url}/api/realtime?channel=team-red`);
    assert.equal(answer.status, 401);
    assert.equal(answer.body, "Unauthorized");
    assert.match(answer.type, /^text\/plain/);
  });

  test("is rejected for the first channel that fails", async () => {
    const cases = [
      ["alice", ["team-red", "team-blue"], 403, "Not a team member"],
      ["alice", ["default", "admin-log", "team-blue"], 403, "Admin access required"],
      ["alice", ["bob-inbox"], 403, "You can only access your own channels"],
      ["mallory", ["default"], 401, "Unauthorized"],
      [undefined, ["default"], 401, "Unauthorized"],
    ];
    for (const [user, channels, status, body] of cases) {
      const query = channels.map((name) => `channel=${name}`).join("&");
      const headers = user ? { cookie: `session=${SESSION[user]}` } : {};
      const response = await fetch(`${gateway.url}/api/realtime?${query}`, { headers });
      assert.deepEqual([response.status, await response.text()], [status, body], `${user} on ${channels}`);
    }
    const root = await SseReader.open(`${gateway.url}/api/realtime?channel=admin-log`, {
      headers: { cookie: `session=${SESSION.root}` },
    });
    assert.equal(root.status, 200, root.body);
    root.close();
  });

  test("gets no history of a channel that it joins after a reconnect", async (t) => {
    await emitNumbers("alice-past", 1, 3);
    const alice = await open(t, { as: "alice", channels: ["alice-void"] });
    await connected(alice);
    const revoked = await fetch(`${gateway.control}/v1/revoke`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ channel: "alice-void" }),
    });
    assert.equal((await revoked.json()).streams, 1);
    await until("the app opens its stream again", () => alice.answers.length === 2);
    await alice.setChannels(["alice-void", "alice-past"]);
    await until("the app joins the channel", () => alice.answers.length === 3);
    await connected(alice);
    await emitNumbers("alice-past", 4);
    await waitForNumber(alice, "alice-past", 4);
    assert.deepEqual(await numbers(alice, "alice-past"), [4]);
  });

  test("loses no event when the network drops", async (t) => {
    const relay = closing.add(await startRelay(gateway.port), (it) => it.down());
    const alice = await open(t, { base: relay.url, as: "alice", channels: ["alice-net", "team-red"] });
    await connected(alice);
    await emitNumbers("alice-net", 41, 43);
    await waitForNumber(alice, "alice-net", 43);

    await t.test("for some time", async () => {
      await relay.down();
      await emitNumbers("alice-net", 44, 48);
      await relay.up();
      await waitForNumber(alice, "alice-net", 48, RECONNECT);
    });
    await t.test("for a moment, between events", async () => {
      const before = relay.accepted;
      const emitting = emitNumbers("alice-net", 49, 54);
      await waitForNumber(alice, "alice-net", 50);
      relay.cut();
      await emitting;
      // These events cannot arrive over the previous connection, which is closed.
      await emitNumbers("alice-net", 55, 60);
      await waitForNumber(alice, "alice-net", 60, RECONNECT);
      assert.ok(relay.accepted > before);
    });
    await emitNumbers("alice-net", 61);
    await waitForNumber(alice, "alice-net", 61);
    assert.deepEqual(await numbers(alice, "alice-net"), range(41, 61));
  });

  test("loses no event when the gateway is replaced", async (t) => {
    const first = await serve("drained");
    const relay = closing.add(await startRelay(first.port), (it) => it.down());
    const alice = await open(t, { base: relay.url, as: "alice", channels: ["alice-drain"] });
    await connected(alice);
    await emitNumbers("alice-drain", 71, 72);
    await waitForNumber(alice, "alice-drain", 72);

    first.process.kill("SIGTERM");
    await emitNumbers("alice-drain", 73, 74);
    const end = await inTime("the drained gateway ends", first.exited, 60_000);
    assert.equal(end.code, 0, first.log());
    await emitNumbers("alice-drain", 75, 76);
    const second = await serve("successor");
    relay.target = second.port;
    await emitNumbers("alice-drain", 77, 78);
    await waitForNumber(alice, "alice-drain", 78, RECONNECT);
    await emitNumbers("alice-drain", 79);
    await waitForNumber(alice, "alice-drain", 79);
    assert.deepEqual(await numbers(alice, "alice-drain"), range(71, 79));
  });

  test("loses no event when the gateway is killed", async (t) => {
    const first = await serve("killed");
    const relay = closing.add(await startRelay(first.port), (it) => it.down());
    const alice = await open(t, { base: relay.url, as: "alice", channels: ["alice-kill"] });
    await connected(alice);
    await emitNumbers("alice-kill", 81, 82);
    await waitForNumber(alice, "alice-kill", 82);

    await first.kill();
    await emitNumbers("alice-kill", 83, 84);
    const second = await serve("heir");
    relay.target = second.port;
    await waitForNumber(alice, "alice-kill", 84, RECONNECT);
    await emitNumbers("alice-kill", 85);
    await waitForNumber(alice, "alice-kill", 85);
    assert.deepEqual(await numbers(alice, "alice-kill"), range(81, 85));
  });
});

describe("a page that sends headers", { timeout: 60_000 }, () => {
  /** The status and the first line of a stream that the app's page fetches with these headers, or why the browser blocks it. */
  async function fetched(visitor, base, headers) {
    const url = `${base}/api/realtime?channel=team-red`;
    return visitor.page.evaluate(async ({ url, headers }) => {
      try {
        const response = await fetch(url, { credentials: "include", headers });
        await response.body.cancel();
        return response.status;
      } catch (error) {
        return error.name;
      }
    }, { url, headers });
  }

  test("may send those that the operator allows", async (t) => {
    const config = policyConfig({ store: redis.url, origin: page.origin, cors: `headers = ["x-tenant"]` });
    const listed = await startGateway({ name: "listed-headers", args: ["serve"], config, dir });
    closing.add(listed, (it) => it.stop());
    const alice = await open(t, { as: "alice", channels: ["team-red"] });
    const standard = {
      authorization: "Bearer t",
      "cache-control": "no-cache",
      "content-type": "application/json",
      "last-event-id": "x",
    };
    for (const [base, headers, answer] of [
      [gateway.url, standard, 200],
      [gateway.url, { ...standard, "x-tenant": "a", "x-other": "b" }, 200],
      [listed.url, standard, 200],
      [listed.url, { "X-Tenant": "a" }, 200],
      [listed.url, { "x-tenant": "a", "x-other": "b" }, "TypeError"],
    ]) {
      assert.equal(await fetched(alice, base, headers), answer, `${base} ${JSON.stringify(headers)}`);
    }
  });
});

describe("the server half", { timeout: 60_000 }, () => {
  test("reads history", async () => {
    const channel = app.channel("alice-history");
    await emitNumbers("alice-history", 1, 5);
    const all = await channel.history();
    assert.deepEqual(all.map(({ event, channel, data }) => ({ event, channel, data })), range(1, 5).map((n) => ({
      event: "chat.message",
      channel: "alice-history",
      data: { n, text: `message ${n}` },
    })));
    for (const { id } of all) assert.match(id, /^\d+-\d+$/);

    const numbersOf = async (args) => (await channel.history(args)).map((message) => message.data.n);
    assert.deepEqual(await numbersOf({ limit: 2 }), [1, 2]);
    assert.deepEqual(await numbersOf({ start: all[3].id }), [4, 5]);
    assert.deepEqual(await numbersOf({ end: all[1].id }), [1, 2]);
    assert.deepEqual(await app.channel("alice-nothing").history(), []);
  });

  test("keeps no more history than configured", async () => {
    const short = emitter(gateway.url, TOKEN, { history: { maxLength: 2, expireAfterSecs: 600 } });
    await emitNumbers("alice-short", 1, 5, short);
    assert.deepEqual((await short.channel("alice-short").history()).map((message) => message.data.n), [4, 5]);
    const ttl = await resp.command("TTL", "alice-short");
    assert.ok(ttl > 500 && ttl <= 600, `TTL ${ttl}`);
  });

  test("rejects data that violates the schema", async () => {
    await assert.rejects(app.channel("alice-schema").emit("chat.message", { n: "one" }));
    assert.equal(await resp.command("EXISTS", "alice-schema"), 0);
  });

  test("subscribes to live events", async () => {
    const got = [];
    const unsubscribe = await app.channel("alice-sub").subscribe({
      events: ["chat.message"],
      onData: (event) => got.push(event),
    });
    await emitNumbers("alice-sub", 1);
    await app.channel("alice-sub").emit("any", "not subscribed to");
    await emitNumbers("alice-sub", 2, 3);
    await until("three events", () => got.length >= 3);
    assert.deepEqual(got.map((event) => event.data.n), [1, 2, 3]);
    const history = await app.channel("alice-sub").history();
    assert.deepEqual(got.map((event) => event.cursor), history.filter((it) => it.event !== "any").map((it) => it.id));
    unsubscribe();
  });

  test("subscribes with history, then live", async () => {
    await emitNumbers("alice-replay", 1, 3);
    const got = [];
    const unsubscribe = await app.channel("alice-replay").subscribe({
      events: ["chat.message"],
      history: true,
      onData: (event) => got.push(event.data.n),
    });
    assert.deepEqual(got, [1, 2, 3]);
    await emitNumbers("alice-replay", 4, 5);
    await until("the live events", () => got.length >= 5);
    assert.deepEqual(got, [1, 2, 3, 4, 5]);
    unsubscribe();
  });

  test("subscribes after a cursor", async () => {
    await emitNumbers("alice-after", 1, 4);
    const history = await app.channel("alice-after").history();
    const got = [];
    const unsubscribe = await app.channel("alice-after").subscribe({
      events: ["chat.message"],
      after: history[1].id,
      onData: (event) => got.push(event.data.n),
    });
    assert.deepEqual(got, [3, 4]);
    await emitNumbers("alice-after", 5);
    await until("the live event", () => got.length >= 3);
    assert.deepEqual(got, [3, 4, 5]);
    unsubscribe();

    const expired = app.channel("alice-after").subscribe({ events: ["chat.message"], after: "1-1", onData() {} });
    await assert.rejects(expired, CursorUnavailableError);
  });
});
