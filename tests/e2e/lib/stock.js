// The other side of the parity tests: the unchanged `handle()` of the npm package, on Node's http server.
import { once } from "node:events";
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { handle, Realtime } from "@upstash/realtime";
import { restClient } from "./npm.js";

/**
 * Serves the stock handler; its Redis is the real npm client on the `/redis` of `gateway`. The server has `url`, and
 * `replayed(channel)`: how many replays of a channel it has read so far, since a replay duplicates events that are emitted while it reads.
 */
export async function startStock(gateway, token) {
  const client = restClient(gateway, token);
  const reads = new Map();
  // The part of the client that `handle` uses. The npm client cannot subscribe to some channel names, as it puts them into a URL. It
  // subscribes to another channel instead: then no live events arrive, but the replay, which waits for the subscription, works.
  const redis = {
    subscribe: (channels) => client.subscribe(channels.map((name, at) => (fitsInPath(name) ? name : `unsupported-name-${at}`))),
    publish: (...args) => client.publish(...args),
    async xrange(channel, ...args) {
      const entries = await client.xrange(channel, ...args);
      // The handler processes the entries before this callback runs.
      setImmediate(() => reads.set(channel, (reads.get(channel) ?? 0) + 1));
      return entries;
    },
  };
  const quiet = () => {};
  const realtime = new Realtime({ redis });
  realtime._logger = { log: quiet, warn: quiet, error: quiet };
  const answer = handle({ realtime });

  const server = createServer(async (request, response) => {
    const abort = new AbortController();
    response.on("close", () => abort.abort());
    const url = new URL(request.url, "http://stock");
    const result = await answer(new Request(url, { headers: request.headers, signal: abort.signal }));
    response.writeHead(result.status, Object.fromEntries(result.headers));
    response.flushHeaders();
    Readable.fromWeb(result.body).on("error", quiet).pipe(response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    replayed: (channel) => reads.get(channel) ?? 0,
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Whether the npm client's `subscribe` can name this channel: it puts the name, unescaped, into the path of a URL. */
export function fitsInPath(name) {
  return name !== "" && name !== "." && name !== ".." && !/[%?#\\/,\s]/.test(name.replaceAll(" ", ""));
}
