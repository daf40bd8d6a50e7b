// `MessageChannel`, `MessagePort` and `BroadcastChannel`, within the instance.
import { setTimeout } from "../timers.ts";
import { cloneAndTransfer } from "./clone.ts";
import { defineInterface, need } from "./define.ts";
import { eventHandlers, EventTarget, MessageEvent } from "./event.ts";

let allowed = false;
let newPort: () => MessagePort;
let entangle: (a: MessagePort, b: MessagePort) => void;
export let isPort: (value: unknown) => value is MessagePort;
/** Moves the other end of a port to a new one. */
export let transferPort: (port: MessagePort) => MessagePort;

class MessagePort extends EventTarget {
  #other: MessagePort | undefined = undefined;
  #started = false;
  #closed = false;
  #queue: { data: unknown; ports: MessagePort[] }[] = [];

  constructor() {
    if (!allowed) throw new TypeError("Illegal constructor");
    super();
  }

  static {
    newPort = () => {
      allowed = true;
      const port = new MessagePort();
      allowed = false;
      return port;
    };
    entangle = (a, b) => {
      a.#other = b;
      b.#other = a;
    };
    isPort = (value): value is MessagePort => typeof value === "object" && value !== null && #queue in value;
    transferPort = (port) => {
      const moved = newPort();
      if (port.#other) entangle(moved, port.#other);
      moved.#queue = port.#queue;
      port.#other = undefined;
      port.#queue = [];
      port.#closed = true;
      return moved;
    };
  }

  postMessage(message: unknown, options: Iterable<unknown> | { transfer?: Iterable<unknown> } | undefined = undefined): void {
    need(1, arguments.length, "MessagePort.postMessage");
    const transfer = options === undefined ? [] : Symbol.iterator in options ? options : (options.transfer ?? []);
    const other = this.#other;
    const moved: MessagePort[] = [];
    const data = cloneAndTransfer(message, [...transfer], moved);
    if (!other || other.#closed) return;
    other.#queue.push({ data, ports: moved });
    if (other.#started) setTimeout(() => other.#deliver(), 0);
  }

  start(): void {
    if (this.#started) return;
    this.#started = true;
    if (this.#queue.length > 0) setTimeout(() => this.#deliver(), 0);
  }

  close(): void {
    this.#closed = true;
    if (this.#other) this.#other.#closed = true;
  }

  ref(): void {}
  unref(): void {}
  hasRef(): boolean {
    return false;
  }

  #deliver(): void {
    if (this.#closed || this.#queue.length === 0) return;
    const { data, ports } = this.#queue.shift()!;
    this.dispatchEvent(new MessageEvent("message", { data, ports: ports as never }));
    if (this.#queue.length > 0) setTimeout(() => this.#deliver(), 0);
  }
}
defineInterface(MessagePort, "MessagePort");
eventHandlers(MessagePort, ["message", "messageerror", "close"]);
// Setting `onmessage` starts the port.
const { get, set } = Object.getOwnPropertyDescriptor(MessagePort.prototype, "onmessage") as Required<PropertyDescriptor>;
Object.defineProperty(MessagePort.prototype, "onmessage", {
  get,
  set(this: MessagePort, handler: unknown) {
    set.call(this, handler);
    this.start();
  },
  enumerable: true,
  configurable: true,
});

class MessageChannel {
  #ports: [MessagePort, MessagePort];
  constructor() {
    this.#ports = [newPort(), newPort()];
    entangle(...this.#ports);
  }
  get port1(): MessagePort {
    return this.#ports[0];
  }
  get port2(): MessagePort {
    return this.#ports[1];
  }
}
defineInterface(MessageChannel, "MessageChannel");

const channels = new Set<BroadcastChannel>();

class BroadcastChannel extends EventTarget {
  #name: string;
  #closed = false;

  constructor(name: string) {
    need(1, arguments.length, "BroadcastChannel constructor");
    super();
    this.#name = `${name}`;
    channels.add(this);
  }

  get name(): string {
    return this.#name;
  }

  postMessage(message: unknown): void {
    need(1, arguments.length, "BroadcastChannel.postMessage");
    if (this.#closed) throw new DOMException("BroadcastChannel is closed.", "InvalidStateError");
    for (const channel of channels) {
      if (channel === this || channel.#name !== this.#name) continue;
      const data = cloneAndTransfer(message, []);
      setTimeout(() => channel.#closed || channel.dispatchEvent(new MessageEvent("message", { data })), 0);
    }
  }

  close(): void {
    this.#closed = true;
    channels.delete(this);
  }

  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}
defineInterface(BroadcastChannel, "BroadcastChannel");
eventHandlers(BroadcastChannel, ["message", "messageerror"]);

export { BroadcastChannel, MessageChannel, MessagePort };
