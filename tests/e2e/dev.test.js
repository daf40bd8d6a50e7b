// `tidegate dev` with the binary alone: the playground in a real browser, and the npm quick start.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Realtime } from "@upstash/realtime";
import { Redis } from "@upstash/redis";
import { z } from "zod";
import { launch, servePage, visit } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { startGateway } from "./lib/gateway.js";
import { until } from "./lib/until.js";

const closing = new Closing();
let dev, browser;

before(async () => {
  dev = closing.add(
    // The default control port may be in use on this machine.
    await startGateway({ name: "dev", args: ["dev", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"] }),
    (it) => it.stop(),
  );
  browser = closing.add(await launch(), (it) => it.close());
});

after(() => closing.run());

describe("the playground", { timeout: 60_000 }, () => {
  let page, problems;

  before(async () => {
    page = await browser.newPage();
    problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(`${dev.url}/`);
  });
  after(() => page?.close());

  const text = (selector) => page.locator(selector).innerText();
  const state = (wanted) =>
    until(`state ${wanted}`, async () => (await text("#state")).trim() === wanted);

  async function connectAs(user, channels) {
    if ((await text("#connect")).trim() === "Disconnect") {
      await page.click("#connect");
      await state("disconnected");
    }
    await page.selectOption("#user", user);
    await page.fill("#channels", channels);
    await page.click("#connect");
  }

  async function emit(channel, event, data) {
    await page.fill("#emit-channel", channel);
    await page.fill("#emit-event", event);
    await page.fill("#emit-data", JSON.stringify(data));
    await page.click("#emit");
  }

  /** The newest row of the decisions whose text matches. */
  async function decision(pattern) {
    return until(`a decision like ${pattern}`, async () => {
      const rows = await page.locator("#decisions > *").allInnerTexts();
      return rows.find((row) => pattern.test(row));
    });
  }

  test("offers the users of the example policy", async () => {
    const values = await page.locator("#user option").evaluateAll((options) => options.map((option) => option.value));
    assert.deepEqual(values, ["alice", "bob", "root", "mallory", ""]);
    assert.equal((await text("#state")).trim(), "disconnected");
    assert.equal((await text("#connect")).trim(), "Connect");
  });

  test("shows Alice the frames of her team", async () => {
    await connectAs("alice", "team-red");
    await state("open");
    assert.equal((await text("#connect")).trim(), "Disconnect");
    await emit("team-red", "greeting", { text: "ahoy ⚓" });
    const frames = page.locator("#frames li");
    await until("the frame", async () => (await frames.allInnerTexts()).some((frame) => frame.includes("ahoy ⚓")));
    const frame = (await frames.allInnerTexts()).find((it) => it.includes("ahoy ⚓"));
    assert.match(frame, /greeting/);
    assert.match(frame, /team-red/);
    await decision(/200|allow|grant|admit/i);
  });

  test("accepts channels separated by commas or spaces", async () => {
    await connectAs("alice", "team-red, default alice-inbox");
    await state("open");
    for (const channel of ["team-red", "default", "alice-inbox"]) {
      await emit(channel, "roll-call", { to: `${channel}!` });
      await until(`the frame of ${channel}`, async () =>
        (await page.locator("#frames li").allInnerTexts()).some((frame) => frame.includes(`${channel}!`)));
    }
  });

  test("shows Mallory the policy's rejection with its reason", async () => {
    await connectAs("mallory", "team-red");
    await state("refused");
    await until("the policy's body", async () => /Unauthorized/.test(await text("body")));
    const row = await decision(/\b401\b/);
    assert.match(row, /µs|μs/);
    assert.ok(row.replace(/\b401\b|[\d.,]+\s*[µμ]s/g, "").match(/[a-z]{4,}/i), `an outcome and a reason: ${row}`);
  });

  test("rejects Alice for another team, and a client without a session for all channels", async () => {
    await connectAs("alice", "team-blue");
    await state("refused");
    await until("the policy's body", async () => /Not a team member/.test(await text("body")));
    await decision(/\b403\b/);
    await connectAs("", "default");
    await state("refused");
  });

  test("allows root in admin channels", async () => {
    await connectAs("root", "admin-log");
    await state("open");
    await emit("admin-log", "note", { text: "for admins" });
    await until("the frame", async () =>
      (await page.locator("#frames li").allInnerTexts()).some((frame) => frame.includes("for admins")));
    await page.click("#connect");
    await state("disconnected");
  });

  test("throws no script error", () => assert.deepEqual(problems, []));
});

describe("the npm quick start", { timeout: 60_000 }, () => {
  let realtime, appPage;

  before(async () => {
    const [, token] = await dev.line(/\bUPSTASH_REDIS_REST_TOKEN=["']?([^"'\s]+)/);
    process.env.UPSTASH_REDIS_REST_URL = `${dev.url}/redis`;
    process.env.UPSTASH_REDIS_REST_TOKEN = token;
    const schema = { notification: { alert: z.string() } };
    realtime = new Realtime({ schema, redis: Redis.fromEnv() });
    appPage = closing.add(await servePage(), (it) => it.stop());
  });

  test("emits and reads history", async () => {
    await realtime.channel("quick-history").emit("notification.alert", "one");
    await realtime.channel("quick-history").emit("notification.alert", "two");
    const history = await realtime.channel("quick-history").history();
    assert.deepEqual(history.map(({ event, data }) => [event, data]), [
      ["notification.alert", "one"],
      ["notification.alert", "two"],
    ]);
  });

  test("reaches the React client on the default channel", async (t) => {
    const api = `${dev.url}/api/realtime`;
    const alice = await visit(browser, appPage.origin, { api, channels: ["default"], session: "alice" });
    t.after(() => alice.close());
    await until(() => `connected; console: ${alice.console}`, async () => (await alice.status()) === "connected");
    await realtime.emit("notification.alert", "hello world!");
    await until("the event", async () => (await alice.received()).length > 0);
    assert.deepEqual(await alice.received(), [{ event: "notification.alert", data: "hello world!", channel: "default" }]);
  });

  test("rejects the React client without a known session", async (t) => {
    const api = `${dev.url}/api/realtime`;
    const mallory = await visit(browser, appPage.origin, { api, channels: ["default"], session: "mallory" });
    t.after(() => mallory.close());
    await until("a rejection", () => mallory.answers.length > 0);
    assert.equal(mallory.answers[0], 401);
    assert.ok(!(await mallory.statuses()).includes("connected"));
  });
});
