// Tests of the harness itself, without the gateway: a broken reader would make other tests pass for the wrong reason.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { launch, servePage, visit } from "./lib/browser.js";
import { Closing } from "./lib/closing.js";
import { Resp, startRedis } from "./lib/redis.js";
import { startRelay } from "./lib/relay.js";
import { SseReader } from "./lib/sse.js";
import { until } from "./lib/until.js";

const closing = new Closing();
const requests = [];
let port, answer;

before(async () => {
  const server = createServer((request, response) => {
    requests.push({ url: request.url, headers: request.headers });
    answer(request, response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  port = server.address().port;
  closing.add(server, () => {
    server.close();
    server.closeAllConnections();
  });
});

after(() => closing.run());

function stream(response, text = "") {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
  if (text) response.write(text);
}

describe("the reader", { timeout: 20_000 }, () => {
  test("parses a stream split at any byte", async () => {
    const text =
      "\uFEFF: comment\nretry: 150\n\nid: 7\ndata: {\"a\":\"é🦀\"}\n\ndata: one\r\ndata: two\r\n\r\nid\ndata:x\r\rid: 9\n\nevent: e\n\n";
    const bytes = Buffer.from(text);
    const expected = [
      { id: "7", data: '{"a":"é🦀"}', json: { a: "é🦀" } },
      { id: null, data: "one\ntwo", json: undefined },
      { id: "", data: "x", json: undefined },
    ];
    for (const step of [1, 2, 3, 7, bytes.length]) {
      answer = async (_, response) => {
        stream(response);
        for (let at = 0; at < bytes.length; at += step) {
          response.write(bytes.subarray(at, at + step));
          await new Promise(setImmediate);
        }
        response.end();
      };
      const reader = await SseReader.open(`http://127.0.0.1:${port}/`);
      await until("the end", () => reader.ended);
      assert.deepEqual(reader.frames, expected, `in pieces of ${step}`);
      assert.deepEqual([reader.lastEventId, reader.retry], ["9", 150]);
    }
  });

  test("reconnects with the id of the last complete event", async () => {
    answer = (_, response) => stream(response, "id: a.1\ndata: 1\n\nid: a.2\ndata: incomplete");
    const reader = await SseReader.open(`http://127.0.0.1:${port}/again`);
    await until("a frame", () => reader.frames.length === 1);
    await reader.reconnect();
    assert.equal(requests.at(-1).url, "/again");
    assert.equal(requests.at(-1).headers["last-event-id"], "a.1");
    reader.close();
  });

  test("exposes a rejection", async () => {
    answer = (_, response) => response.writeHead(403, { "content-type": "text/plain" }).end("no");
    const reader = await SseReader.open(`http://127.0.0.1:${port}/`);
    assert.deepEqual([reader.status, reader.body, reader.frames], [403, "no", []]);
  });
});

describe("the relay", { timeout: 20_000 }, () => {
  test("relays, disconnects, stops and restarts", async () => {
    answer = (_, response) => stream(response, "data: 1\n\n");
    const relay = closing.add(await startRelay(port), (it) => it.down());
    const { url } = relay;
    const reader = await SseReader.open(url);
    await until("a frame", () => reader.frames.length === 1);
    assert.equal(relay.links, 1);
    relay.cut();
    await until("the disconnect", () => reader.ended && relay.links === 0);
    await reader.reconnect();
    await until("a second frame", () => reader.frames.length === 2);
    await relay.down();
    await until("the end", () => reader.ended);
    await assert.rejects(reader.reconnect(), { code: "ECONNREFUSED" });
    await relay.up();
    assert.equal(relay.url, url);
    await reader.reconnect();
    await until("a third frame", () => reader.frames.length === 3);
    assert.equal(relay.accepted, 3);
    reader.close();
  });

  test("drops a link whose target does not listen", async () => {
    const relay = closing.add(await startRelay(1), (it) => it.down());
    await assert.rejects(SseReader.open(relay.url));
  });
});

describe("Redis", { timeout: 20_000 }, () => {
  test("starts and exchanges raw bytes", async () => {
    const redis = closing.add(await startRedis({ dir: closing.dir(), options: { appendonly: "yes" } }), (it) => it.stop());
    const resp = closing.add(await Resp.open(redis.port), (it) => it.close());
    assert.equal(await resp.command("XADD", "s", "1-1", "k", Buffer.from("wért")), "1-1");
    assert.deepEqual(await resp.command("XRANGE", "s", "-", "+"), [["1-1", ["k", "wért"]]]);
    assert.equal(await resp.command("GET", "none"), null);
    await assert.rejects(resp.command("GET", "s"), /WRONGTYPE/);
    assert.deepEqual(await resp.command("CONFIG", "GET", "appendonly"), ["appendonly", "yes"]);
  });
});

describe("the browser", { timeout: 60_000 }, () => {
  test("shows the app, which receives events and reconnects", async () => {
    const browser = closing.add(await launch(), (it) => it.close());
    const page = closing.add(await servePage(), (it) => it.stop());
    let calls = 0;
    answer = (request, response) => {
      calls += 1;
      response.setHeader("access-control-allow-origin", page.origin);
      response.setHeader("access-control-allow-credentials", "true");
      if (!/session=alice/.test(request.headers.cookie)) return response.writeHead(401).end("Unauthorized");
      const event = { id: `${calls}-1`, event: "e", channel: "c", data: { calls } };
      stream(response, `retry: 100\nid: ${calls}\ndata: ${JSON.stringify(event)}\n\n`);
    };
    const relay = closing.add(await startRelay(port), (it) => it.down());
    const api = `${relay.url}/api`;
    const alice = await visit(browser, page.origin, { api, channels: ["c"], session: "alice" });
    await until("the event", async () => (await alice.received()).length === 1);
    assert.deepEqual(await alice.received(), [{ event: "e", data: { calls: 1 }, channel: "c" }]);
    assert.equal(await alice.status(), "connected");
    assert.equal(await alice.page.locator("#received li").innerText(), 'c e {"calls":1}');
    relay.cut();
    await until("the event after the disconnect", async () => (await alice.received()).length === 2);
    assert.equal(requests.at(-1).headers["last-event-id"], "1");
    await alice.setChannels(["d"]);
    await until("a request for the other channel", () => requests.at(-1).url.includes("channel=d&"));

    const mallory = await visit(browser, page.origin, { api, channels: ["c"], session: "mallory" });
    await until("two rejections", () => mallory.answers.length >= 2);
    assert.deepEqual([...new Set(mallory.answers)], [401]);
    assert.ok(!(await mallory.statuses()).includes("connected"));
  });
});
