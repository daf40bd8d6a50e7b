// A Redis server for one suite, and raw commands to it, which the npm client would not send.
import { once } from "node:events";
import { createServer, connect } from "node:net";
import { Child } from "./child.js";

const BINARY = process.env.REDIS_SERVER || "/usr/bin/redis-server";

/** Starts redis-server in `dir`. `options` are further options, such as `{ appendonly: "yes" }`. */
export async function startRedis({ dir, options = {} }) {
  const flags = Object.entries({ save: "", appendonly: "no", ...options }).flatMap(([key, value]) => [`--${key}`, value]);
  // Redis cannot bind "any port", and a free port may be taken before Redis binds it: retry with another one.
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const server = new Child("redis", BINARY, ["--bind", "127.0.0.1", "--port", String(port), "--dir", dir, ...flags]);
    try {
      await server.line(/Ready to accept connections/);
    } catch (error) {
      await server.kill();
      if (attempt < 5 && server.stdout.some((line) => line.includes("Address already in use"))) continue;
      throw error;
    }
    server.port = port;
    server.url = `redis://127.0.0.1:${port}`;
    return server;
  }
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

/** A connection that sends commands one after the other. Replies: strings, numbers, null, arrays; errors are thrown. */
export class Resp {
  #socket;
  #input = Buffer.alloc(0);
  #waiting = [];

  static async open(port) {
    const resp = new Resp();
    resp.#socket = connect(port, "127.0.0.1");
    resp.#socket.setNoDelay(true);
    await once(resp.#socket, "connect");
    resp.#socket.on("data", (bytes) => resp.#take(bytes));
    resp.#socket.on("error", (error) => resp.#fail(error));
    resp.#socket.on("close", () => resp.#fail(new Error("Redis closed the connection")));
    return resp;
  }

  /** Sends one command; arguments are strings, numbers or Buffers. */
  command(...args) {
    const parts = [Buffer.from(`*${args.length}\r\n`)];
    for (const arg of args) {
      const bytes = Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg));
      parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n"));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(Buffer.concat(parts));
    });
  }

  close() {
    this.#socket.destroy();
  }

  #take(bytes) {
    this.#input = Buffer.concat([this.#input, bytes]);
    for (;;) {
      const reply = parse(this.#input, 0);
      if (!reply) return;
      this.#input = this.#input.subarray(reply.end);
      const { resolve, reject } = this.#waiting.shift();
      if (reply.value instanceof Error) reject(reply.value);
      else resolve(reply.value);
    }
  }

  #fail(error) {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

/** One RESP2 value at `at`: `{value, end}`, or undefined while it is incomplete. */
function parse(bytes, at) {
  const eol = bytes.indexOf("\r\n", at);
  if (eol < 0) return undefined;
  const rest = bytes.toString("utf8", at + 1, eol);
  const end = eol + 2;
  switch (String.fromCharCode(bytes[at])) {
    case "+":
      return { value: rest, end };
    case "-":
      return { value: new Error(rest), end };
    case ":":
      return { value: Number(rest), end };
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
      return { value: Number(rest) < 0 ? null : value, end: next };
    }
    default:
      throw new Error(`not RESP: ${bytes.toString("latin1", at, at + 40)}`);
  }
}
