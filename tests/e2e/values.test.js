// Values keep their type and their digits: those of the npm emitter over `/redis`, live and replayed, and texts of other emitters.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Realtime } from "@upstash/realtime";
import { Redis } from "@upstash/redis";
import { Closing } from "./lib/closing.js";
import { restClient } from "./lib/npm.js";
import { Resp, startRedis } from "./lib/redis.js";
import { SseReader } from "./lib/sse.js";
import { startAllowAll, TOKEN } from "./lib/example.js";

const closing = new Closing();
const SEED = 12;
let resp, gate, other;

before(async () => {
  const dir = closing.dir();
  const redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  resp = closing.add(await Resp.open(redis.port), (it) => it.close());
  const serve = (name) => startAllowAll(closing, { name, store: redis.url, dir });
  gate = await serve("gate");
  // It has heard no notification of what it replays.
  other = await serve("other");
});

after(() => closing.run());

/** A stream of `channel` from its beginning. */
async function open(gateway, channel) {
  const reader = await SseReader.open(`${gateway.url}/api/realtime?channel=${channel}&last_ack_${channel}=0`);
  closing.add(reader, (it) => it.close());
  return reader.connected([channel]);
}

/** The data of the channel's events, after the event `end` has arrived. */
async function dataOf(reader, channel) {
  await reader.event("end", { channel });
  return reader.users(channel).filter(({ event }) => event !== "end").map(({ data }) => data);
}

/** Asserts that two lists have the same values; `0` and `-0` are different. */
function assertSame(got, expected, what) {
  assert.equal(got.length, expected.length, what);
  for (const [at, value] of expected.entries()) {
    assert.deepStrictEqual(got[at], value, `${what}, ${at}: ${JSON.stringify(value)?.slice(0, 100)}`);
  }
}

// ---- The npm emitter

const date = new Date(Date.UTC(2026, 10, 30, 1, 2, 3, 4));
const emoji = "👩‍👩‍👧 🏳️‍🌈 🦀";
/** Values, and what arrives if it is not the value itself. */
const EMITTED = [
  ["106242075399214372653"], ["1.10"], ["1.5"], ["007"], ["1e5"], ["1e+21"], ["123"], ["-7"], ["0"], ["-0"], [" 42"], ["42 "],
  ["true"], ["false"], ["True"], ["NaN"], ["Infinity"], ["undefined"], [""], [" "], ["plain words"], ["{broken"], ["[1,]"],
  ["\ud800"], ["a\udc00b"], ["\udc00\ud800"], [`${emoji}\ud83e`], [emoji], ["äöüß 漢字 עברית"], ["\u2028\u2029\ufeff\u007f"],
  ["one\ntwo\r\nthree\rfour\ttab\u0000nul\u001f"], ["data: x\n\nid: 1-1\n\n"], ['say "hi"'], ["back\\slash \\u0041 \\/"],
  [42], [0], [-0, 0], [-17], [1.5], [0.1], [1e21], [-1e21], [1e-7], [123456789012345680000], [2 ** 53 + 2], [-(2 ** 53)],
  [Number.MAX_VALUE], [Number.MIN_VALUE], [NaN, null], [-Infinity, null], [true], [false], [null], [undefined, null],
  [{}], [[]], [[[], {}, null, "123", 1e21, ""]], [{ at: date, none: undefined, "": { " ": "\ud800" } }, { at: date.toISOString(), "": { " ": "\ud800" } }],
  [{ a: "42", b: [true, "true"], c: "\u2028" }], [date, date.toISOString()], [() => {}, null],
  [{ toJSON: () => ({ made: "by toJSON" }) }, { made: "by toJSON" }], ["0123456789abcdé ".repeat(20_000)],
];

/** Strings that `/redis` cannot tell from other values, because the npm emitter sends these as text, and their replayed values. */
const UNTELLABLE = [["null", null], ['{"a":1}', { a: 1 }], ["[1,2]", [1, 2]], ['"quoted"', "quoted"]];

describe("the npm emitter over /redis", { timeout: 60_000 }, () => {
  const variants = {
    plain: () => new Realtime({ redis: restClient(gate.url, TOKEN) }),
    history: () =>
      new Realtime({ redis: restClient(gate.url, TOKEN), history: { maxLength: 1000, expireAfterSecs: 600 } }),
    pipelined: () =>
      new Realtime({ redis: new Redis({ url: `${gate.url}/redis`, token: TOKEN, enableAutoPipelining: true }) }),
    "without base64": () =>
      new Realtime({ redis: new Redis({ url: `${gate.url}/redis`, token: TOKEN, responseEncoding: false, readYourWrites: false }) }),
  };
  for (const [variant, create] of Object.entries(variants)) {
    test(`${variant}: each value is the same live and replayed`, async () => {
      const channel = `emitted-${variant.replaceAll(" ", "-")}`;
      const app = create().channel(channel);
      const live = await open(gate, channel);
      for (const [value] of EMITTED) await app.emit("e", value);
      await app.emit("end", null);
      const expected = EMITTED.map((row) => row.at(-1));
      assertSame(await dataOf(live, channel), expected, "live");
      assertSame(await dataOf(await open(other, channel), channel), expected, "replayed");
      // What the package itself reads back has the fields that it knows.
      const history = await app.history({ limit: 10 });
      assert.deepEqual(Object.keys(history[0]).sort(), ["channel", "data", "event", "id"]);
    });
  }

  test("strings that may be other values are live as emitted, and replayed as by a stock server", async () => {
    const channel = "untellable";
    const app = variants.plain().channel(channel);
    const live = await open(gate, channel);
    for (const [value] of UNTELLABLE) await app.emit("e", value);
    await app.emit("end", null);
    assertSame(await dataOf(live, channel), UNTELLABLE.map(([value]) => value), "live");
    assertSame(await dataOf(await open(other, channel), channel), UNTELLABLE.map(([, value]) => value), "replayed");
  });

  test("names of events that are JSON stay as emitted", async () => {
    const channel = "event-names";
    const app = variants.plain().channel(channel);
    const names = ["42", "true", "null", '"quoted"', "1.50", "[1]", "ä.b c\n🦀", ""];
    for (const name of names) for (const data of ["7", 7]) await app.emit(name, data);
    await app.emit("end", null);
    const reader = await open(other, channel);
    await reader.event("end", { channel });
    const got = reader.users(channel).slice(0, -1).map(({ event, data }) => [event, data]);
    assert.deepEqual(got, names.flatMap((name) => [[name, "7"], [name, 7]]));
  });

  test("a client that reads the stream sees the type where the text does not tell it", async () => {
    const channel = "raw-fields";
    const redis = restClient(gate.url, TOKEN);
    const add = (data) => redis.xadd(channel, "*", { data, event: "e", channel });
    for (const data of ["42", 42, "words", { a: 1 }]) await add(data);
    await redis.pipeline().xadd(channel, "*", { data: "true", event: "e", channel }).exec();
    await redis.xadd(channel, "*", { data: 1, event: "e", channel, type: "mine" });
    await redis.xadd(channel, "*", { data: 1, note: "not an event" });
    const rows = await resp.command("XRANGE", channel, "-", "+");
    const fields = rows.map(([, list]) => list.join(" "));
    assert.deepEqual(fields, [
      `data 42 event e channel ${channel} type string`,
      `data 42 event e channel ${channel} type json`,
      `data words event e channel ${channel}`,
      `data {"a":1} event e channel ${channel}`,
      `data true event e channel ${channel} type string`,
      `data 1 event e channel ${channel} type mine`,
      "data 1 note not an event",
    ]);
    assert.deepEqual(Object.values(await redis.xrange(channel, "-", "+", 1)), [{ data: 42, event: "e", channel, type: "string" }]);
  });
});

// ---- Other emitters

/** Pseudo-random numbers in [0, 1): the same ones in each run. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function* texts(next) {
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  const double = () => {
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setUint32(0, below(2 ** 32));
    bytes.setUint32(4, below(2 ** 32));
    return bytes.getFloat64(0);
  };
  const number = () => pick([double, () => below(2000) / 8 - 100, () => next() * 10 ** below(30), () => 10 ** (below(60) - 30)])();
  const numberText = () => {
    const value = number();
    return pick([
      () => JSON.stringify(value), () => String(value), () => value.toExponential(), () => value.toFixed(below(5)),
      () => value.toPrecision(1 + below(21)), () => `${BigInt(Math.trunc(Number.isFinite(value) ? value : 7))}`, () => `0${value}`,
      () => Array.from({ length: 1 + below(30) }, () => below(10)).join(""), () => ` ${value}`, () => `${value}\n`, () => `+${value}`,
      () => String(value).toUpperCase(), () => `-${Math.abs(value)}`,
    ])();
  };
  const characters = ["a", '"', "\\", "/", "\b", "\n", "\t", "\u0000", "\u001f", "\u007f", "é", "\u2028", "🦀", "\ud83e", "\udd80", "{", "7"];
  const string = () => Array.from({ length: below(6) }, () => pick(characters)).join("");
  const escaped = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const stringText = () => {
    const text = JSON.stringify(string());
    return pick([
      () => text, () => text.replace("/", "\\/"), () => text.replace(/[^\0-~]/g, (c) => [...Array(c.length).keys()].map((i) => escaped(c[i])).join("")),
      () => text.replace(/\\u[0-9a-f]{4}/g, (it) => it.toUpperCase().replace("U", "u")), () => ` ${text}`, () => text.slice(0, -1),
      () => text.replace("a", "\\u0061"), () => text.replace("\\n", "\\u000a"), () => `"\\ud83e\\udd80${text.slice(1)}`,
    ])();
  };
  const structureText = () => {
    const value = pick([() => [number(), string()], () => ({ [string()]: number(), a: [string()] }), () => [], () => ({})])();
    return pick([() => JSON.stringify(value), () => JSON.stringify(value, null, below(4)), () => JSON.stringify(value).replaceAll(",", " , "),
      () => JSON.stringify(value).replace("]", ",]"), () => `${JSON.stringify(value)} `])();
  };
  const word = () => pick(["null", "true", "false", "null ", "True", "NULL", "NaN", "undefined", "", " ", "words", "nul"]);
  for (;;) yield pick([numberText, numberText, stringText, stringText, structureText, word])();
}

/** What a text is: JSON if `JSON.stringify` writes it, or an object or an array in any form. */
function valueOf(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return text;
  }
  return (typeof value === "object" && value !== null) || JSON.stringify(value) === text ? value : text;
}

describe("other emitters", { timeout: 60_000 }, () => {
  test("a text is JSON only if JSON.stringify may have written it", async () => {
    const channel = "other-emitters";
    const all = [
      "1.10", "1e5", "007", "106242075399214372653", "-0", " 42", "1.0", "1e400", "9007199254740993", "1E+21", "1e21", '"\\u0041"',
      '"\\/"', '"\\u001F"', '{"a": 1}', '{"a":1,"a":2}', '[106242075399214372653]', "42", "1e+21", '"a"', "true", "null",
    ];
    for (const text of texts(random(SEED))) {
      // Redis has the text in UTF-8, so a lone surrogate would not arrive.
      if (text.isWellFormed()) all.push(text);
      if (all.length === 3000) break;
    }
    const added = all.map((text) => resp.command("XADD", channel, "*", "data", text, "event", "e", "channel", channel));
    await Promise.all(added);
    await resp.command("XADD", channel, "*", "data", "null", "event", "end", "channel", channel);
    const got = await dataOf(await open(other, channel), channel);
    assert.equal(got.length, all.length);
    for (const [at, text] of all.entries()) assert.deepStrictEqual(got[at], valueOf(text), `seed ${SEED}: ${JSON.stringify(text)}`);
    const values = all.filter((text) => valueOf(text) !== text).length;
    assert.ok(values > 500 && values < 2500, `${values} values of ${all.length} texts`);
  });
});
