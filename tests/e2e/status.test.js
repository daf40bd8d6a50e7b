// The status page of the control port in a real browser.
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { launch } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { REPO, startGateway } from "./lib/gateway.js";
import { SseReader } from "./lib/sse.js";
import { until } from "./lib/until.js";

const TOKEN = "0123456789-control";
// A name that a client may choose, and that would run a script if the page inserted it as markup.
const HOSTILE = 'alice-<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const EXAMPLE = join(REPO, "guest-examples/rust-role-based/policy.wasm");

const closing = new Closing();
let gateway, browser, policy, control;

before(async () => {
  const dir = closing.dir();
  policy = join(dir, "policy.wasm");
  copyFileSync(EXAMPLE, policy);
  // `dev` activates the file whenever it changes.
  const config = `
control = { listen = "127.0.0.1:0", token = "${TOKEN}" }
drain = { delay = "60s" }
policy = { rotation-window = "0s" }
`;
  gateway = closing.add(
    await startGateway({ name: "status", args: ["dev", "--listen", "127.0.0.1:0", "--policy", policy], config, dir }),
    (it) => it.kill(),
  );
  control = (await gateway.line(/\bcontrol on (http:\/\/127\.0\.0\.1:\d+)/))[1];
  browser = closing.add(await launch(), (it) => it.close());
});

after(() => closing.run());

/** Replaces the policy's file, as a compiler does. */
function replacePolicy(content) {
  writeFileSync(`${policy}.new`, content);
  renameSync(`${policy}.new`, policy);
}

function open(channels, session) {
  const query = new URLSearchParams(channels.map((channel) => ["channel", channel]));
  return SseReader.open(`${gateway.url}/api/realtime?${query}`, { headers: { cookie: `session=${session}` } });
}

describe("the status page", { timeout: 90_000 }, () => {
  let page;
  const problems = [];
  const requestedOrigins = new Set();

  before(async () => {
    page = await browser.newPage();
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      // The tests expect answers with 401, and later no answer.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text())) problems.push(message.text());
    });
    page.on("request", (request) => requestedOrigins.add(new URL(request.url()).origin));
    await page.goto(`${control}/`);
  });
  after(() => page?.close());

  const text = (selector) => page.locator(selector).innerText();
  const rows = (id) => page.locator(`#${id} tr`).allInnerTexts();
  const row = (id, pattern) => until(`a row of ${id} like ${pattern}`, async () => (await rows(id)).find((it) => pattern.test(it)));
  const state = (wanted) => until(async () => `state ${wanted}`, async () => (await text("#state")).includes(wanted));
  const figure = async (name) =>
    page.locator("#figures div").filter({ hasText: name }).locator("dd").first().evaluate((it) => it.firstChild.textContent);

  test("asks for the token, and shows nothing without it", async () => {
    await state("locked");
    assert.equal(await page.locator("main").isVisible(), false);
    assert.equal(await text("#figures").catch(() => ""), "");
    await page.fill("#token", "another");
    await page.click("#sign-in-button");
    await until("a message about the wrong token", async () => /not the token/.test(await text("#sign-in-hint")));
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.fill("#token", TOKEN);
    await page.keyboard.press("Enter");
    await state("ready");
    assert.equal(await page.locator("#sign-in").isVisible(), false);
    assert.equal(await page.inputValue("#token"), "");
  });

  test("keeps the token in its tab only", async () => {
    await page.reload();
    await state("ready");
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
    const other = await browser.newPage();
    await other.goto(`${control}/`);
    await until("another tab asks for the token", () => other.locator("#token").isVisible());
    await other.close();
  });

  test("shows the active policy", async () => {
    const policy = await text("#policy");
    assert.match(policy, /[0-9a-f]{64}/);
    assert.match(policy, /Generation\s+1\b/);
    assert.match(policy, /policy\.wasm/);
    await row("history", /generation 1/);
  });

  test("shows streams by channel and subject, as text", async (t) => {
    const streams = [await open(["team-red", "default"], "alice"), await open(["team-red", HOSTILE], "alice"), await open(["default"], "bob")];
    t.after(() => streams.forEach((stream) => stream.close()));
    assert.deepEqual(streams.map((stream) => stream.status), [200, 200, 200]);
    await row("channels", /^team-red\s+2$/);
    await row("channels", /^default\s+2$/);
    assert.equal((await row("channels", /onerror/)).trim(), `${HOSTILE}\t1`);
    await row("subjects", /^alice\s+2$/);
    await row("subjects", /^bob\s+1$/);
    assert.equal(await figure("Streams"), "3");
    await until("allowed requests are counted", async () => (await figure("Allowed")) !== "0/s");
    await until("the duration of decisions is shown", async () => /[µm]s/.test(await figure("Decision, p99")));
  });

  test("shows recent rejections with their reason, as text", async () => {
    const refused = await open([HOSTILE], "mallory");
    assert.equal(refused.status, 401);
    const rejection = await row("rejections", /rejected 401/);
    assert.ok(rejection.includes(HOSTILE), rejection);
    assert.match(rejection, /session/i);
    await until("the chart has a bar for the rejection", async () => (await page.locator("#rates rect.rejected").evaluateAll((all) =>
      all.some((rect) => Number(rect.getAttribute("height")) > 0))));
    await row("channels", /No streams/);
  });

  test("shows a revocation as the reason, and not the policy's reason to allow", async () => {
    const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
    const body = JSON.stringify({ subject: "bob", for: "10m" });
    const { revocation } = await (await fetch(`${control}/v1/revoke`, { method: "POST", headers, body })).json();
    assert.equal((await open(["default"], "bob")).status, 403);
    const rejection = await row("rejections", /revoked/);
    assert.match(rejection, /an operator revoked this access/);
    assert.doesNotMatch(rejection, /bob:/);
    await until("the revocation is counted", async () => (await figure("Revocations")) === "1");
    await fetch(`${control}/v1/revocations/${revocation.id}`, { method: "DELETE", headers });
    await until("the revocation is removed", async () => (await figure("Revocations")) === "0");
  });

  test("shows numbers and outcomes in full next to long names", async (t) => {
    const long = `alice-${"x".repeat(900)}`;
    const stream = await open([long], "alice");
    t.after(() => stream.close());
    assert.equal((await open([`team-${"y".repeat(900)}`], "alice")).status, 403);
    await row("channels", /xxxx/);
    await row("rejections", /yyyy/);
    for (const width of [1280, 800]) {
      await page.setViewportSize({ width, height: 800 });
      const lines = (selector) => page.locator(selector).evaluateAll((cells) => cells.map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map(({ bottom }) => Math.round(bottom))).size;
      }));
      for (const selector of ["#channels .number", "#rejections .tight", "#rejections code", "#rejections .number", "thead th"]) {
        const counts = await lines(selector);
        assert.ok(counts.length > 0 && counts.every((count) => count <= 1), `${selector} at ${width}: ${counts}`);
      }
      const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok((await overflow()) <= 0, `${await overflow()} px too wide`);
    }
    // A name with a change of text direction affects only itself.
    assert.ok(await page.locator("#channels bdi").count());
    // In the list layout each cell has a label.
    await page.setViewportSize({ width: 400, height: 800 });
    const label = await page.locator("#rejections td[data-name=Reason]").first().evaluate((cell) => getComputedStyle(cell, "::before").content);
    assert.match(label, /Reason/);
    assert.equal(await page.locator("#rejections td").first().evaluate((cell) => getComputedStyle(cell).display), "block");
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  test("shows activations and failures", async () => {
    // A custom section makes it another component that decides the same.
    replacePolicy(Buffer.concat([readFileSync(EXAMPLE), Buffer.from([0, 3, 1, 0x78, 0x79])]));
    await row("history", /generation 2/);
    await until("the new policy is active", async () => /Generation\s+2\b/.test(await text("#policy")));
    replacePolicy("<b>not a component</b>");
    const failure = await row("history", /activation failed/);
    assert.match(failure, /stage compiled/);
    assert.match(await text("#policy"), /Generation\s+2\b/);
    assert.equal(await figure("Streams"), "0");
  });

  test("inserts no client text as markup, and sends no request to other hosts", async () => {
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.locator("img, main script, main b").count(), 0);
    assert.deepEqual([...requestedOrigins], [control]);
    assert.deepEqual(problems, []);
  });

  test("fits on a phone, and follows the dark colour scheme", async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok((await overflow()) <= 0, `${await overflow()} px too wide`);
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background();
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await background(), light);
  });

  test("shows that a node drains, and that it does not answer", async () => {
    gateway.process.kill("SIGTERM");
    await state("draining");
    await gateway.kill();
    await state("does not answer");
    await until("an error message is shown", async () => /does not answer/.test(await text("#error")));
  });

  test("forgets the token on request", async () => {
    await page.click("#sign-out");
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  });
});
