// The same requests to Tidegate and to `handle()` of the npm package, on one Redis: the stock client would pass the same events to
// the app, channel by channel. Where Tidegate intentionally improves on the stock handler, Tidegate is tested alone.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Realtime } from "@upstash/realtime";
import { Closing } from "./lib/closing.js";
import { restClient } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { SseReader } from "./lib/sse.js";
import { fitsInPath, startStock } from "./lib/stock.js";
import { until } from "./lib/until.js";
import { startAllowAll, TOKEN } from "./lib/example.js";

const closing = new Closing();
const readers = new Set();
let resp, tidegate, stock, app;

before(async () => {
  const dir = closing.dir();
  const redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  resp = closing.add(await Resp.open(redis.port), (it) => it.close());
  const serve = (name) => startAllowAll(closing, { name, store: redis.url, dir });
  tidegate = await serve("tidegate");
  // The stock handler and the emitter reach Redis through a gateway that streams nothing.
  const rest = await serve("rest");
  stock = closing.add(await startStock(rest.url, TOKEN), (it) => it.stop());
  app = new Realtime({ redis: restClient(rest.url, TOKEN) });
});

afterEach(() => {
  for (const reader of readers) reader.close();
  readers.clear();
});

after(() => closing.run());

// ---- Requesting and emitting

/** A query as the stock client writes it. */
function query(channels, acks = {}) {
  const encode = encodeURIComponent;
  const names = channels.map((name) => `channel=${encode(name)}`);
  return [...names, ...Object.entries(acks).map(([name, ack]) => `last_ack_${encode(name)}=${encode(ack)}`)].join("&");
}

async function open(server, search, options) {
  const reader = await SseReader.open(`${server.url}/api/realtime?${search}`, options);
  readers.add(reader);
  return reader;
}

/** A connected stream of Tidegate only. */
async function openTidegate(channels, acks, options) {
  return (await open(tidegate, query(channels, acks), options)).connected(channels);
}

/** A connected stream of each side for the same request. The stock side has finished its replay, during which it may repeat events. */
async function openBoth(channels, search) {
  const readBefore = channels.map((name) => stock.replayed(name));
  const sides = await Promise.all([tidegate, stock].map((server) => open(server, search)));
  await Promise.all(sides.map((side) => side.connected(channels)));
  await until("the stock replay", () => channels.every((name, at) => stock.replayed(name) > readBefore[at]));
  return sides;
}

const emit = (channel, event, data) => app.channel(channel).emit(event, data);

/** Writes an entry as the stock emitter does, but with an id and raw bytes of the test's choice. */
const entry = (channel, id, data, event = "e") =>
  resp.command("XADD", channel, id, "data", data, "event", event, "channel", channel);

const publish = (channel, payload) =>
  resp.command("PUBLISH", channel, typeof payload === "string" ? payload : JSON.stringify(payload));

// ---- Comparing

/** The user frames of a channel as the app receives them, without the end marker. */
function events(reader, channel) {
  return reader
    .users(channel)
    .filter((event) => event.event !== "end")
    // `data` is absent on the stock side where it is null on Tidegate's.
    .map(({ id, data = null, event, channel }) => ({ id, data, event, channel }));
}

/** Both sides reach the end marker of every channel, with the same events before it. Returns Tidegate's. */
async function assertSame(sides, channels) {
  const [ours, theirs] = sides;
  for (const channel of channels) {
    for (const side of sides) await side.event("end", { channel });
    assert.deepEqual(events(ours, channel), events(theirs, channel), `on ${channel}`);
    for (const event of ours.users(channel)) {
      assert.deepEqual(Object.keys(event).sort(), ["channel", "data", "event", "id"]);
    }
  }
  return channels.flatMap((channel) => events(ours, channel));
}

/** Both sides listen to `channel`; each of `data` is emitted after the previous one has arrived. */
async function live(channel, data, search = query([channel])) {
  const sides = await openBoth([channel], search);
  for (const [at, datum] of data.entries()) {
    await emit(channel, "e", datum);
    for (const side of sides) {
      await until(`event ${at} on ${side.url}`, () => side.users(channel).length > at);
    }
  }
  await emit(channel, "end", null);
  return assertSame(sides, [channel]);
}

/** Both sides replay `channel` from `ack`; no client listened while it was written. */
async function replay(channel, ack = "0") {
  await emit(channel, "end", null);
  return assertSame(await openBoth([channel], query([channel], { [channel]: ack })), [channel]);
}

const dataOf = (list) => list.map((event) => event.data);

// ---- The table

const DATA = {
  "null": null,
  "true": true,
  "false": false,
  "zero": 0,
  "one": 1,
  "a negative number": -17,
  "a float": 1.5,
  "a large float": 1e21,
  "a small float": 1e-7,
  "the largest safe integer": 9007199254740991,
  "a string": "plain words",
  "the empty string": "",
  "a string of digits": "123",
  "a string with the text true": "true",
  "a string with the text null": "null",
  "a string that is a float": "1.50",
  "a string that is an array": "[1,2]",
  "a string that is an object": '{"a":1}',
  "a string in quotes": '"quoted"',
  "a string that is almost JSON": "{broken",
  "a number in spaces": " 7 ",
  "umlauts and ideographs": "äöüß 漢字 עברית",
  "emoji": "👩‍👩‍👧 🏳️‍🌈 🦀",
  "line breaks and control characters": "one\ntwo\r\nthree\rfour\ttab\u0000nul\u2028\u2029\u007f",
  "a string that looks like a frame": "data: x\n\nid: 1-1\n\n",
  "an empty array": [],
  "an empty object": {},
  "nesting": { a: [{ b: [[], [{}], null] }, "123", 1, false], "": { " ": "" } },
  "awkward keys": { "a.b": 1, "ä": 2, "\n": 3, '"': 4, "1": 5 },
  "half a surrogate pair": { half: "\ud83e" },
  "deep nesting": JSON.parse("[".repeat(90) + "]".repeat(90)),
  "64 KiB": { text: "0123456789abcdé ".repeat(4096) },
};

/** Strings that the stock server replays as other values. Tidegate keeps them. */
const KEPT = new Set(["a string of digits", "a string with the text true", "a string that is a float", "a number in spaces"]);

describe("data", { timeout: 120_000 }, () => {
  let nth = 0;
  for (const [name, value] of Object.entries(DATA)) {
    test(name, async () => {
      nth += 1;
      const got = await live(`data-${nth}-live`, [value, { then: value }]);
      assert.deepEqual(dataOf(got), [value, { then: value }], "live keeps the type");

      const channel = `data-${nth}-replay`;
      await emit(channel, "e", value);
      await emit(channel, "e", { then: value });
      if (KEPT.has(name)) {
        await emit(channel, "end", null);
        const reader = await openTidegate([channel], { [channel]: "0" });
        await reader.event("end");
        assert.deepEqual(dataOf(events(reader, channel)), [value, { then: value }]);
        return;
      }
      const replayed = await replay(channel);
      assert.equal(replayed.length, 2);
      assert.deepEqual(replayed[1].data, { then: value });
    });
  }

  test("raw entries are replayed alike", async () => {
    const texts = [
      "9007199254740992", "-0.1", "1e+21", "5e-324", "01", "NaN", "nul", "+1", "'a'", "[1,]",
      '{"a":1,"a":2}', ' {"spaced" : [ 1 , 2 ] } ', '"é🦀"', '"\\ud83e"', '"open',
    ];
    for (const text of texts) await entry("raw-text", "*", text);
    await entry("raw-text", "*", Buffer.from([0xff, 0x61, 0xc3]));
    const got = await replay("raw-text");
    assert.equal(got.length, texts.length + 1);
    assert.deepEqual(got[10].data, { a: 2 });
    assert.equal(got.at(-1).data, "\ufffda\ufffd");
  });
});

const CHANNELS = [
  "with space", "a+b", "100%", "%41", "a/b", "a,b", "a?b=c", "a#b", "a&b=c", "ünïcode", "漢字", "🦀", "user:42", "a..b", "..",
  "*", "[x]", "last_ack_x", `it's "quoted"`, "{curly}", "back\\slash", "x".repeat(200),
];

describe("channel names", { timeout: 60_000 }, () => {
  for (const name of CHANNELS) {
    test(name.slice(0, 20), async () => {
      await emit(name, "e", 1);
      await emit(name, "e", { to: name });
      const got = await replay(name);
      assert.deepEqual(got.map((event) => [event.channel, event.data]), [[name, 1], [name, { to: name }]]);
      const liveName = `${name}~live`;
      if (fitsInPath(liveName)) await live(liveName, [1, { to: name }]);
    });
  }

  test("a request without a channel opens the default channel", async () => {
    const sides = await openBoth(["default"], "");
    await emit("default", "e", 1);
    await emit("default", "end", null);
    assert.deepEqual(dataOf(await assertSame(sides, ["default"])), [1]);
  });

  test("a plus is a space, and invalid UTF-8 is replaced", async () => {
    for (const [raw, name] of [["plus+space", "plus space"], ["bad%FFbyte", "bad\ufffdbyte"], ["%zz", "%zz"]]) {
      await emit(name, "e", raw);
      await emit(name, "end", null);
      const sides = await openBoth([name], `channel=${raw}&last_ack_${raw}=0`);
      assert.deepEqual(dataOf(await assertSame(sides, [name])), [raw]);
    }
  });

  test("a repeated channel is opened once", async () => {
    const [a, b] = ["repeat-a", "repeat-b"];
    for (const name of [a, b, a, b]) await emit(name, "e", name);
    for (const name of [a, b]) await emit(name, "end", null);
    const sides = await openBoth([a, b], query([a, b, a, a, b], { [a]: "0", [b]: "0" }));
    assert.equal((await assertSame(sides, [a, b])).length, 4);
    for (const side of sides) assert.equal(side.system("connected").length, 2);
  });

  test("many channels are opened", async () => {
    const names = Array.from({ length: 40 }, (_, at) => `many-${at}`);
    for (const name of names) for (let n = 0; n < 3; n++) await entry(name, "*", String(n));
    const sides = await openBoth(names, query(names, Object.fromEntries(names.map((name) => [name, "0"]))));
    for (const name of names) await emit(name, "e", "live");
    for (const side of sides) {
      for (const name of names) await until(`all of ${name}`, () => side.users(name).length === 4);
    }
    for (const name of names) await emit(name, "end", null);
    assert.equal((await assertSame(sides, names)).length, 160);
  });
});

const IDS = ["1000-0", "1000-1", "1000-2", "2000-0", "3000-5"];
const ACKS = {
  "0": IDS,
  "0-0": IDS,
  "999": IDS,
  "1000": IDS.slice(1),
  "1000-0": IDS.slice(1),
  "1000-1": IDS.slice(2),
  "1500": IDS.slice(3),
  "1999-18446744073709551615": IDS.slice(3),
  "2000-0": IDS.slice(4),
  "3000": ["3000-5"],
  "3000-5": [],
  "3001": [],
};

describe("acknowledgements", { timeout: 60_000 }, () => {
  for (const [ack, expected] of Object.entries(ACKS)) {
    test(ack, async () => {
      const channel = `ack-${ack}`;
      for (const id of IDS) await entry(channel, id, `"${id}"`);
      const got = await replay(channel, ack);
      assert.deepEqual(got.map((event) => event.id), expected);
    });
  }

  test("without an acknowledgement only live events arrive", async () => {
    await emit("ack-none", "e", "before");
    assert.deepEqual(dataOf(await live("ack-none", ["after"])), ["after"]);
  });

  test("an acknowledgement of a fast browser clock", async () => {
    await emit("ack-ahead", "e", "before");
    const ahead = String(Date.now() + 600_000);
    assert.deepEqual(dataOf(await live("ack-ahead", ["a", "b"], query(["ack-ahead"], { "ack-ahead": ahead }))), ["a", "b"]);
  });

  test("an acknowledgement of a slow browser clock", async () => {
    await emit("old-ack", "e", "before");
    await emit("old-ack", "end", null);
    const old = String(Date.now() - 600_000);
    const sides = await openBoth(["old-ack"], query(["old-ack"], { "old-ack": old }));
    assert.deepEqual(dataOf(await assertSame(sides, ["old-ack"])), ["before"]);
  });

  test("the first of two acknowledgements applies", async () => {
    for (const id of IDS) await entry("ack-two", id, "1");
    await emit("ack-two", "end", null);
    const sides = await openBoth(["ack-two"], "channel=ack-two&last_ack_ack-two=2000-0&last_ack_ack-two=0");
    assert.deepEqual((await assertSame(sides, ["ack-two"])).map((event) => event.id), ["3000-5"]);
  });

  test("each channel has its acknowledgement", async () => {
    const acks = { "ack-each-a": "0", "ack-each-b": "2000-0", "ack-each-c": "1000" };
    const names = Object.keys(acks);
    for (const name of names) for (const id of IDS) await entry(name, id, "1");
    for (const name of names) await emit(name, "end", null);
    const got = await assertSame(await openBoth(names, query(names, acks)), names);
    assert.equal(got.length, 5 + 1 + 4);
  });
});

describe("invalid messages and entries", { timeout: 60_000 }, () => {
  const fields = {
    "an entry without an event": ["data", "1", "channel", "@"],
    "an entry of other fields": ["foo", "bar"],
    "an entry with more fields": ["data", "1", "event", "e", "channel", "@", "note", "n"],
    "an entry with an id of its own": ["id", "7-7", "data", "1", "event", "e", "channel", "@"],
    "an entry in another order": ["channel", "@", "event", "e", "data", "[1]"],
    "an entry with an empty event": ["data", "1", "event", "", "channel", "@"],
    "an entry with odd characters in its event": ["data", "1", "event", "ä.b c\n🦀", "channel", "@"],
    "an entry with two data": ["data", "1", "data", "2", "event", "e", "channel", "@"],
  };
  let nth = 0;
  for (const [name, list] of Object.entries(fields)) {
    test(name, async () => {
      const channel = `junk-${(nth += 1)}`;
      await emit(channel, "e", "before");
      await resp.command("XADD", channel, "*", ...list.map((it) => (it === "@" ? channel : it)));
      await emit(channel, "e", "after");
      await replay(channel);
    });
  }

  const payloads = {
    "not JSON": "bare words",
    "nothing": "",
    "broken JSON": '{"event":"e"',
    "scalars": ["null", "true", "123", '"text"', "[]", "{}"],
    "without an id": { data: 1, event: "e", channel: "@" },
    "with an invalid id": { data: 1, event: "e", channel: "@", id: "abc" },
    "with a number for an id": { data: 1, event: "e", channel: "@", id: 5 },
    "without an event": { data: 1, channel: "@", id: "1-1" },
    "with an event that is not a string": { data: 1, event: 5, channel: "@", id: "1-1" },
    "without a channel": { data: 1, event: "e", id: "1-1" },
  };
  for (const [name, payload] of Object.entries(payloads)) {
    test(`a message ${name}`, async () => {
      const channel = `junk-${(nth += 1)}`;
      const sides = await openBoth([channel], query([channel]));
      for (const message of [payload].flat()) {
        const text = typeof message === "string" ? message : JSON.stringify(message);
        await publish(channel, text.replace('"@"', JSON.stringify(channel)));
      }
      await emit(channel, "e", "after");
      await emit(channel, "end", null);
      assert.deepEqual(dataOf(await assertSame(sides, [channel])), ["after"]);
    });
  }
});

// ---- Tidegate alone: improvements on the stock handler

describe("improved events", { timeout: 60_000 }, () => {
  test("channels and events named like numbers and booleans are replayed", async () => {
    for (const name of ["42", "true", "null", "1.5", "[1]"]) {
      await emit(name, name, { of: name });
      await emit(name, "end", null);
      const reader = await openTidegate([name], { [name]: "0" });
      await reader.event("end");
      assert.deepEqual(events(reader, name).map(({ data, event, channel }) => [data, event, channel]), [
        [{ of: name }, name, name],
      ]);
    }
  });

  test("an entry without data replays as null", async () => {
    await resp.command("XADD", "dataless", "*", "event", "e", "channel", "dataless");
    await emit("dataless", "end", 1);
    const reader = await openTidegate(["dataless"], { dataless: "0" });
    await reader.event("end");
    assert.deepEqual(events(reader, "dataless").map(({ data, event }) => [data, event]), [[null, "e"]]);
  });

  test("the channel with an empty name is delivered", async () => {
    const reader = await open(tidegate, "channel=&last_ack_=0");
    await reader.connected([""]);
    await emit("", "e", 1);
    await reader.event("e", { channel: "" });
  });

  test("published system frames are not delivered", async () => {
    const channel = "forged";
    const reader = await openTidegate([channel]);
    for (const frame of [
      { type: "reconnect", timestamp: 1 },
      { type: "connected", channel, cursor: "9999999999999-0" },
      { type: "error", error: "forged" },
      { type: "ping", timestamp: 1 },
      { type: "disconnected", channels: [channel] },
    ]) await publish(channel, frame);
    await emit(channel, "end", null);
    await reader.event("end");
    assert.equal(reader.system("connected").length, 1);
    for (const type of ["reconnect", "error", "disconnected"]) assert.deepEqual(reader.system(type), [], type);
    assert.ok(!reader.system("ping").some((ping) => ping.timestamp === 1));
    assert.equal(reader.ended, false);
  });

  test("an event carries the name of its channel", async () => {
    const channel = "honest";
    const reader = await openTidegate([channel]);
    const id = await resp.command("XADD", channel, "*", "data", "1", "event", "e", "channel", "other");
    await publish(channel, { data: 1, event: "e", channel: "other", id });
    await emit(channel, "end", null);
    await reader.event("end");
    assert.deepEqual(reader.users().map((event) => event.channel), [channel, channel]);
  });

  test("an event arrives once for any number of notifications", async () => {
    const channel = "once";
    const reader = await openTidegate([channel]);
    const id = await entry(channel, "*", "1");
    for (let n = 0; n < 5; n++) await publish(channel, { data: 1, event: "e", channel, id });
    await emit(channel, "end", null);
    await reader.event("end");
    assert.deepEqual(events(reader, channel).map((event) => event.id), [id]);
  });

  test("events arrive in stream order for any order of notifications", async () => {
    const channel = "order";
    const reader = await openTidegate([channel]);
    const ids = [];
    for (let n = 0; n < 6; n++) ids.push(await entry(channel, "*", String(n)));
    for (const [n, id] of [...ids.entries()].reverse()) await publish(channel, { data: n, event: "e", channel, id });
    await emit(channel, "end", null);
    await reader.event("end");
    assert.deepEqual(events(reader, channel).map((event) => [event.id, event.data]), ids.map((id, n) => [id, n]));
  });

  test("an event without a notification arrives with the next one", async () => {
    const channel = "silent";
    const reader = await openTidegate([channel]);
    const id = await entry(channel, "*", "1");
    await emit(channel, "end", null);
    await reader.event("end");
    assert.deepEqual(events(reader, channel).map((event) => event.id), [id]);
  });

  test("an event that was trimmed before it was read arrives from its notification", async () => {
    const channel = "trimmed";
    const reader = await openTidegate([channel]);
    const short = new Realtime({ redis: app._redis, history: { maxLength: 1 } });
    for (let n = 0; n < 20; n++) await short.channel(channel).emit("e", n);
    await short.channel(channel).emit("end", null);
    await reader.event("end");
    assert.deepEqual(dataOf(events(reader, channel)), Array.from({ length: 20 }, (_, n) => n));
  });

  test("eight concurrent emitters lose and repeat no event", async () => {
    const channel = "crowd";
    const reader = await openTidegate([channel]);
    await Promise.all(Array.from({ length: 8 }, async (_, emitter) => {
      for (let n = 0; n < 25; n++) await emit(channel, "e", { emitter, n });
    }));
    await emit(channel, "end", null);
    await reader.event("end");
    const stored = await app.channel(channel).history();
    assert.deepEqual(reader.users(channel).map((event) => event.id), stored.map((event) => event.id));
    assert.equal(stored.length, 201);
  });
});

describe("improved streams", { timeout: 60_000 }, () => {
  test("the response head is that of an event stream", async () => {
    const reader = await openTidegate(["head"]);
    assert.equal(reader.status, 200);
    assert.match(reader.headers["content-type"], /^text\/event-stream/);
    assert.equal(reader.headers["cache-control"], "no-cache, no-transform");
    assert.equal(reader.headers["x-accel-buffering"], "no");
    assert.equal(reader.headers["access-control-allow-origin"], "*");
  });

  test("connected is the first frame and has the start position of the channel", async () => {
    const channel = "cursor";
    for (const id of IDS) await entry(channel, id, "1");
    for (const [ack, cursor] of [["1000-1", "1000-1"], ["1000", "1000-0"], ["0", "0-0"], [undefined, "3000-5"]]) {
      const reader = await openTidegate([channel], ack && { [channel]: ack });
      assert.equal(reader.system("connected")[0].cursor, cursor, `for ${ack}`);
      assert.deepEqual(reader.frames[0].json, { type: "connected", channel, cursor });
      assert.ok(reader.frames[0].id, "its block has an id");
    }
    const empty = await openTidegate(["cursor-empty"]);
    assert.equal(empty.system("connected")[0].cursor, "0-0");
  });

  test("a native reconnect loses and repeats no event", async () => {
    const names = ["native-a", "native-b", "native c"];
    const reader = await openTidegate(names, { "native-a": "0", "native-b": "0" });
    for (let round = 0; round < 4; round++) {
      for (const name of names) await emit(name, "e", `live ${round}`);
      for (const name of names) {
        await until(`round ${round} of ${name}`, () => dataOf(events(reader, name)).includes(`live ${round}`));
      }
      assert.ok(reader.lastEventId, "events have ids");
      reader.close();
      for (const name of names) await emit(name, "e", `missed ${round}`);
      await reader.reconnect();
      assert.equal(reader.status, 200);
    }
    for (const name of names) await emit(name, "end", null);
    for (const name of names) {
      await reader.event("end", { channel: name });
      const expected = [0, 1, 2, 3].flatMap((round) => [`live ${round}`, `missed ${round}`]);
      assert.deepEqual(dataOf(events(reader, name)), expected, name);
    }
  });

  test("an id that cannot be used leaves the start to the acknowledgement", async () => {
    const channel = "foreign-id";
    for (const id of IDS) await entry(channel, id, "1");
    await emit(channel, "end", null);
    const other = await openTidegate(["foreign-other"]);
    for (const id of [other.lastEventId, "garbage", "1-1-1", "x".repeat(5000), `${other.lastEventId}.`]) {
      const reader = await openTidegate([channel], { [channel]: "2000-0" }, { headers: { "last-event-id": id } });
      await reader.event("end");
      assert.deepEqual(events(reader, channel).map((event) => event.id), ["3000-5"], id.slice(0, 40));
      assert.deepEqual(reader.system("gap"), []);
    }
  });

  test("a malformed acknowledgement is a 400 that names the parameter", async () => {
    for (const ack of ["abc", "1-2-3", "99999999999999999999", "", "-1", "1-", "-", "1.5", "0x1", " "]) {
      const reader = await open(tidegate, query(["malformed"], { malformed: ack }));
      assert.equal(reader.status, 400, `for ${JSON.stringify(ack)}`);
      const { error } = JSON.parse(reader.body);
      assert.equal(typeof error.code, "string");
      assert.match(error.message, /last_ack_malformed/);
    }
  });

  test("a key of another type is an error for its channel only", async () => {
    await resp.command("SET", "wrong-type", "s3cret");
    const reader = await open(tidegate, query(["wrong-type", "right-type"], { "wrong-type": "0", "right-type": "0" }));
    await reader.connected(["right-type"]);
    await emit("right-type", "end", null);
    await reader.event("end", { channel: "right-type" });
    await until("the error frame", () => reader.system("error").length > 0);
    for (const { error } of reader.system("error")) assert.doesNotMatch(error, /s3cret|string|WRONGTYPE/i);
    assert.equal(reader.ended, false);
  });

  test("trimmed entries are reported as a gap", async () => {
    const channel = "gap-trimmed";
    for (const id of IDS) await entry(channel, id, "1");
    await resp.command("XTRIM", channel, "MAXLEN", "2");
    const got = await replay(channel, "1000-0");
    assert.deepEqual(got.map((event) => event.id), ["2000-0", "3000-5"]);
    const reader = await openTidegate([channel], { [channel]: "1000-0" });
    await reader.event("end");
    const [gap] = reader.system("gap");
    assert.ok(gap, "a gap frame");
    assert.equal(gap.channel, channel);
    assert.equal(gap.after, "1000-0");
    assert.equal(typeof gap.resumed, "string");
    assert.equal(typeof gap.certain, "boolean");
    assert.equal(typeof gap.reason, "string");
  });

  test("a rollback of the store is reported as a gap, and the stream continues", async () => {
    const channel = "gap-back";
    await entry(channel, "1000-0", "1");
    const reader = await openTidegate([channel], { [channel]: "9999999999999-0" });
    await until("the gap", () => reader.system("gap").length > 0);
    const [gap] = reader.system("gap");
    assert.equal(gap.reason, "store-reset");
    // The store may have lost everything that the client received.
    assert.equal(gap.after, null);
    await emit(channel, "end", null);
    await reader.event("end");
  });

  test("Tidegate's own keys are not channels", async () => {
    for (const channels of [["tidegate:x"], ["default", "tidegate:policy"]]) {
      const reader = await open(tidegate, query(channels));
      assert.ok(reader.status >= 400 && reader.status < 500, `${reader.status}`);
      assert.equal(typeof JSON.parse(reader.body).error.code, "string");
    }
  });

  test("other paths are not found", async () => {
    const health = await fetch(`${tidegate.url}/healthz`);
    assert.equal(health.status, 200);
    for (const path of ["/", "/nothing", "/api/realtime/x", "/v1/streams"]) {
      const response = await fetch(tidegate.url + path);
      assert.equal(response.status, 404, path);
      assert.equal(typeof (await response.json()).error.code, "string");
    }
  });
});
