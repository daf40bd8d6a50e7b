// The peer: `handle()` of the npm package, unchanged, on Node's own http server, over one connection to Redis for all streams.
// Arguments: the port of Redis, and the path of the package.json next to which the package is installed.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

const [port, installed] = process.argv.slice(2);
const { handle, Realtime } = await import(pathToFileURL(createRequire(installed).resolve("@upstash/realtime")));

/** A connection to Redis: one for commands, and one that is subscribed. */
function open(onMessage) {
  const socket = connect(Number(port), "127.0.0.1").setNoDelay(true);
  const waiting = [];
  let input = Buffer.alloc(0);
  socket.on("data", (bytes) => {
    input = input.length > 0 ? Buffer.concat([input, bytes]) : bytes;
    for (;;) {
      const reply = parse(input, 0);
      if (!reply) return;
      input = input.subarray(reply.end);
      if (Array.isArray(reply.value) && reply.value[0] === "message") onMessage(reply.value[1], reply.value[2]);
      else waiting.shift()(reply.value);
    }
  });
  return (...args) =>
    new Promise((resolve) => {
      waiting.push(resolve);
      const parts = args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`);
      socket.write(`*${args.length}\r\n${parts.join("")}`);
    });
}

/** One RESP2 value at `at`: `{value, end}`, or undefined while it is incomplete. */
function parse(bytes, at) {
  const eol = bytes.indexOf("\r\n", at);
  if (eol < 0) return undefined;
  const rest = bytes.toString("latin1", at + 1, eol);
  const end = eol + 2;
  switch (String.fromCharCode(bytes[at])) {
    case "$": {
      const length = Number(rest);
      if (length < 0) return { value: null, end };
      if (bytes.length < end + length + 2) return undefined;
      return { value: bytes.toString("utf8", end, end + length), end: end + length + 2 };
    }
    case "*": {
      const value = [];
      let next = end;
      for (let i = 0; i < Number(rest); i++) {
        const item = parse(bytes, next);
        if (!item) return undefined;
        value.push(item.value);
        next = item.end;
      }
      return { value, end: next };
    }
    default:
      return { value: rest, end };
  }
}

const command = open(() => {});
const listeners = new Map();
const subscribed = open((channel, message) => listeners.get(channel)?.forEach((each) => each({ channel, message })));

// The part of a Redis client that `handle` uses.
const redis = {
  subscribe(channels) {
    const on = new Map();
    const emit = (name, value) => on.get(name)?.(value);
    const forward = (message) => emit("message", message);
    for (const channel of channels) {
      const known = listeners.get(channel);
      if (known) known.add(forward);
      else listeners.set(channel, new Set([forward]));
      Promise.resolve(known ?? subscribed("SUBSCRIBE", channel)).then(() => emit("subscribe"));
    }
    return {
      on: (name, callback) => on.set(name, callback),
      async unsubscribe() {
        for (const channel of channels) {
          const known = listeners.get(channel);
          known?.delete(forward);
          if (known?.size === 0) {
            listeners.delete(channel);
            await subscribed("UNSUBSCRIBE", channel);
          }
        }
      },
    };
  },
  publish: (channel, message) => command("PUBLISH", channel, JSON.stringify(message)),
  async xrange(channel, from, to) {
    const entries = await command("XRANGE", channel, from, to);
    return Object.fromEntries(entries.map(([id, fields]) => [id, Object.fromEntries(pairs(fields))]));
  },
};

function* pairs(list) {
  for (let at = 0; at < list.length; at += 2) yield [list[at], list[at + 1]];
}

/** The rule of the example policy, as an app would write it. */
async function middleware({ request, channels }) {
  const sid = /(?:^|;\s*)session=([^;]*)/.exec(request.headers.get("cookie") ?? "")?.[1];
  const session = sid && (await command("GET", `session:${sid}`));
  if (!session) return new Response("Unauthorized", { status: 401 });
  const { id } = JSON.parse(session);
  if (!channels.every((channel) => channel === id || channel.startsWith(`${id}-`))) {
    return new Response("You can only access your own channels", { status: 403 });
  }
}

const quiet = () => {};
const realtime = new Realtime({ redis });
realtime._logger = { log: quiet, warn: quiet, error: quiet };
const answer = handle({ realtime, middleware });

const server = createServer(async (request, response) => {
  const closed = new AbortController();
  response.on("close", () => closed.abort());
  const url = new URL(request.url, "http://stock");
  const result = await answer(new Request(url, { headers: request.headers, signal: closed.signal }));
  response.writeHead(result.status, Object.fromEntries(result.headers));
  response.flushHeaders();
  Readable.fromWeb(result.body).on("error", quiet).pipe(response);
}).listen(0, "127.0.0.1", 1024, () => console.log(`node on http://127.0.0.1:${server.address().port}`));
