// A TCP relay between a client and the gateway, which a test can disconnect.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/**
 * Listens on a free port and passes bytes to `127.0.0.1:<target>`; `target` may be changed at any time. With a list of targets it is
 * a round-robin load balancer: a connection that one target refuses goes to the next.
 */
export async function startRelay(target) {
  const relay = new Relay(target);
  await relay.up();
  return relay;
}

class Relay {
  port = 0;
  /** Number of accepted connections. */
  accepted = 0;
  #server = null;
  #sockets = new Set();

  constructor(target) {
    this.target = target;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Number of open links. */
  get links() {
    return this.#sockets.size / 2;
  }

  /** Closes every link. New connections are still accepted. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Closes every link and accepts no new connection until `up()`. */
  async down() {
    const server = this.#server;
    if (!server) return;
    this.#server = null;
    const closed = once(server, "close");
    server.close();
    this.cut();
    await closed;
  }

  /** Listens; after `down()`, on the same port as before. */
  async up() {
    if (this.#server) return;
    this.#server = createServer((client) => this.#link(client)).listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = this.#server.address().port;
  }

  #link(client) {
    const targets = [this.target].flat();
    const first = this.accepted++;
    client.on("error", () => client.destroy());
    this.#connect(client, targets.map((_, index) => targets[(first + index) % targets.length]));
  }

  #connect(client, [target, ...others]) {
    const server = connect(target, "127.0.0.1");
    if (others.length === 0) return this.#join(client, server);
    const next = () => this.#connect(client, others);
    server.once("error", next);
    server.once("connect", () => {
      server.removeListener("error", next);
      this.#join(client, server);
    });
  }

  #join(client, server) {
    if (client.destroyed) return server.destroy();
    for (const [socket, other] of [[client, server], [server, client]]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}
