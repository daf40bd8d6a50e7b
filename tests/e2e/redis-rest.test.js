// `@upstash/redis` against `/redis`: the commands that the server half of @upstash/realtime sends, and no others.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Closing } from "./lib/closing.js";
import { restClient } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { until } from "./lib/until.js";
import { startAllowAll, TOKEN } from "./lib/example.js";

// The package does not export the class of its errors.
const REFUSED = { name: "UpstashError" };

for (const backend of ["redis", "memory"]) {
  describe(`/redis over ${backend}`, { timeout: 60_000 }, () => {
    const closing = new Closing();
    let gateway, redis, resp;

    before(async () => {
      const dir = closing.dir();
      let store = "memory:";
      if (backend === "redis") {
        const server = closing.add(await startRedis({ dir }), (it) => it.stop());
        resp = closing.add(await Resp.open(server.port), (it) => it.close());
        store = server.url;
      }
      gateway = await startAllowAll(closing, { name: backend, store, dir });
      redis = restClient(gateway.url, TOKEN);
    });
    after(() => closing.run());

    /** Sends a plain request with `command` as its body. */
    async function post(command, { path = "", token = TOKEN, headers = {} } = {}) {
      const response = await fetch(`${gateway.url}/redis${path}`, {
        method: "POST",
        headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }), ...headers },
        body: JSON.stringify(command),
      });
      const text = await response.text();
      return { status: response.status, json: JSON.parse(text) };
    }

    test("executes XADD and XRANGE", async () => {
      const first = await redis.xadd("x-basic", "*", { data: { a: [1, "zwei", null] }, event: "e", channel: "x-basic" });
      const second = await redis.xadd("x-basic", "*", { data: "ünï ✓", event: "f", channel: "x-basic" });
      assert.match(first, /^\d+-\d+$/);
      const all = await redis.xrange("x-basic", "-", "+");
      assert.deepEqual(all, {
        [first]: { data: { a: [1, "zwei", null] }, event: "e", channel: "x-basic" },
        [second]: { data: "ünï ✓", event: "f", channel: "x-basic" },
      });
      assert.deepEqual(Object.keys(all), [first, second]);
      assert.deepEqual(Object.keys(await redis.xrange("x-basic", "-", "+", 1)), [first]);
      assert.deepEqual(Object.keys(await redis.xrange("x-basic", `(${first}`, "+")), [second]);
      assert.deepEqual(Object.keys(await redis.xrange("x-basic", "-", first)), [first]);
      assert.deepEqual(await redis.xrange("x-nothing", "-", "+"), {});
    });

    test("accepts numbers and booleans as arguments", async () => {
      const id = await redis.xadd("x-types", "*", { int: 42, float: 1.5, yes: true, tiny: 1e-7, none: null });
      assert.deepEqual(await redis.xrange("x-types", id, id), {
        [id]: { int: 42, float: 1.5, yes: true, tiny: 1e-7, none: null },
      });
      if (resp) {
        const [[, fields]] = await resp.command("XRANGE", "x-types", "-", "+");
        assert.deepEqual(fields, ["int", "42", "float", "1.5", "yes", "true", "tiny", "1e-7", "none", "null"]);
      }
    });

    test("trims on XADD", async () => {
      for (let n = 1; n <= 5; n++) {
        await redis.xadd("x-trim", "*", { n }, { trim: { type: "MAXLEN", threshold: 2, comparison: "=" } });
      }
      assert.deepEqual(Object.values(await redis.xrange("x-trim", "-", "+")), [{ n: 4 }, { n: 5 }]);
    });

    test("executes PUBLISH and subscribe", async () => {
      const got = [];
      const subscribed = [];
      const subscriber = redis.subscribe(["p-one", "p-two"]);
      subscriber.on("subscribe", (count) => subscribed.push(count));
      subscriber.on("message", ({ channel, message }) => got.push([channel, message]));
      await until("both are subscribed", () => subscribed.length === 2);
      assert.equal(typeof (await redis.publish("p-one", { text: "a, b\nc ✓" })), "number");
      await until("the first message", () => got.length === 1);
      await redis.publish("p-two", [1, "2", null]);
      await until("the second message", () => got.length === 2);
      await redis.publish("p-other", "not subscribed to");
      await redis.publish("p-one", "bare words");
      await until("the third message", () => got.length === 3);
      assert.deepEqual(got, [
        ["p-one", { text: "a, b\nc ✓" }],
        ["p-two", [1, "2", null]],
        ["p-one", "bare words"],
      ]);
      await subscriber.unsubscribe();
    });

    test("subscribes to names that need escaping in a path", async () => {
      for (const name of ["with space", "Zürich", "🦀", "1+1", "a:b.c-d_e~f!$&'()*;=@"]) {
        const got = [];
        let ready = false;
        const subscriber = redis.subscribe(name);
        subscriber.on("subscribe", () => (ready = true));
        subscriber.on("error", (error) => got.push(String(error)));
        subscriber.on("message", ({ channel, message }) => got.push([channel, message]));
        await until(`subscribed to ${name}; ${got}`, () => ready);
        await redis.publish(name, { name });
        await until(`a message on ${name}`, () => got.length > 0);
        assert.deepEqual(got, [[name, { name }]]);
        await subscriber.unsubscribe();
      }
    });

    test("executes EXPIRE", async () => {
      await redis.xadd("x-expire", "*", { n: 1 });
      assert.equal(await redis.expire("x-expire", 300), 1);
      assert.equal(await redis.expire("x-absent", 300), 0);
      if (resp) {
        const ttl = await resp.command("TTL", "x-expire");
        assert.ok(ttl > 290 && ttl <= 300, `TTL ${ttl}`);
      }
      await redis.xadd("x-brief", "*", { n: 1 });
      assert.equal(await redis.expire("x-brief", 1), 1);
      await until("the key has expired", async () => Object.keys(await redis.xrange("x-brief", "-", "+")).length === 0);
    });

    test("executes a pipeline", async () => {
      await redis.xadd("x-pipe", "*", { n: 1 });
      const pipeline = redis.pipeline();
      pipeline.expire("x-pipe", 60);
      pipeline.publish("x-pipe", { n: 1 });
      pipeline.xrange("x-pipe", "-", "+");
      const [expired, receivers, entries] = await pipeline.exec();
      assert.equal(expired, 1);
      assert.equal(typeof receivers, "number");
      assert.deepEqual(Object.values(entries), [{ n: 1 }]);
    });

    test("answers in plain text without the base64 header", async () => {
      const { status, json } = await post(["XADD", "x-plain", "5-1", "k", "wért"]);
      assert.deepEqual([status, json], [200, { result: "5-1" }]);
      const range = await post(["xrange", "x-plain", "-", "+"]);
      assert.deepEqual(range.json, { result: [["5-1", ["k", "wért"]]] });
      const coded = await post(["XRANGE", "x-plain", "-", "+"], { headers: { "upstash-encoding": "base64" } });
      const base64 = (text) => Buffer.from(text).toString("base64");
      assert.deepEqual(coded.json, { result: [[base64("5-1"), [base64("k"), base64("wért")]]] });
    });

    test("rejects other commands", async () => {
      await assert.rejects(redis.get("x-basic"), REFUSED);
      await assert.rejects(redis.set("y", "1"), REFUSED);
      await assert.rejects(redis.del("x-basic"), REFUSED);
      await assert.rejects(redis.eval("return 1", [], []), REFUSED);
      await assert.rejects(redis.flushall(), REFUSED);
      const pipeline = redis.pipeline();
      pipeline.get("x-basic");
      await assert.rejects(pipeline.exec());
      for (const command of [["GET", "x"], ["CONFIG", "GET", "*"], [], "GET", { GET: "x" }, [["GET"]]]) {
        const { status, json } = await post(command);
        assert.ok(status >= 400 && status < 500, `${JSON.stringify(command)}: ${status}`);
        // The npm client prints `error` unchanged, so it has to be text.
        assert.equal(typeof json.error, "string");
      }
    });

    test("rejects a wrong token", async () => {
      const stranger = restClient(gateway.url, "not-the-token");
      await assert.rejects(stranger.xrange("x-basic", "-", "+"), REFUSED);
      for (const token of ["not-the-token", `${TOKEN}x`, TOKEN.slice(1), null]) {
        const { status, json } = await post(["XRANGE", "x-basic", "-", "+"], { token });
        assert.equal(status, 401, `${token}`);
        assert.equal(typeof json.error, "string");
      }
      const errors = [];
      const subscriber = stranger.subscribe("x-basic");
      subscriber.on("error", (error) => errors.push(error));
      await until("the subscription is refused", () => errors.length > 0);
    });

    test("rejects keys that are not channels", async () => {
      await assert.rejects(redis.xadd("tidegate:x", "*", { n: 1 }), REFUSED);
      await assert.rejects(redis.xrange("tidegate:x", "-", "+"), REFUSED);
      await assert.rejects(redis.publish("tidegate:x", "x"), REFUSED);
      await assert.rejects(redis.expire("tidegate:x", 1), REFUSED);
      const errors = [];
      const subscriber = redis.subscribe("tidegate:x");
      subscriber.on("error", (error) => errors.push(error));
      await until("the subscription is refused", () => errors.length > 0);
      if (resp) assert.equal(await resp.command("EXISTS", "tidegate:x"), 0);
    });

    test("rejects EXPIRE of a key that is not a stream", { skip: backend === "memory" && "needs raw commands" }, async () => {
      await resp.command("SET", "a-string", "v");
      await resp.command("SADD", "a-set", "v");
      for (const key of ["a-string", "a-set"]) {
        await assert.rejects(redis.expire(key, 5), REFUSED);
        const pipeline = redis.pipeline();
        pipeline.expire(key, 5);
        await assert.rejects(pipeline.exec());
        assert.equal(await resp.command("TTL", key), -1);
      }
    });

    test("passes on errors of Redis", async () => {
      const { status, json } = await post(["XADD", "x-bad", "0-0", "k", "v"]);
      assert.ok(status >= 400 && status < 500, `${status}`);
      assert.equal(typeof json.error, "string");
      await assert.rejects(redis.xrange("x-basic", "no-id", "+"), REFUSED);
    });
  });
}
