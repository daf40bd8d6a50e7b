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

  /** Drops every link. New ones are still accepted. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Drops every link and accepts no new one until `up()`. */
  async down() {
    const server = this.#server;
    if (!server) return;
    this.#server = null;
    const closed = once(server, "close");
    server.close();
    this.cut();
    await closed;
  }

  /** Listens, on the same port as before. */
  async up() {
    if (this.#server) return;
    this.#server = createServer((near) => this.#link(near)).listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = this.#server.address().port;
  }

  #link(near) {
    const targets = [this.target].flat();
    const turn = this.accepted++;
    near.on("error", () => near.destroy());
    this.#connect(near, targets.map((_, index) => targets[(turn + index) % targets.length]));
  }

  #connect(near, [target, ...others]) {
    const far = connect(target, "127.0.0.1");
    if (others.length === 0) return this.#join(near, far);
    const next = () => this.#connect(near, others);
    far.once("error", next);
    far.once("connect", () => {
      far.removeListener("error", next);
      this.#join(near, far);
    });
  }

  #join(near, far) {
    if (near.destroyed) return far.destroy();
    for (const [socket, other] of [[near, far], [far, near]]) {
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
