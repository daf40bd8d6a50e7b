// Timers, with the objects that Node returns. The event loop runs one timer at a time, and the jobs of promises after each.

/** The longest delay; a longer one is 1 ms, as in browsers and in Node. */
const MAX_DELAY_MS = 0x7fffffff;

type Callback = (...args: unknown[]) => void;

/** A timer, which also converts to its number. */
class Timeout {
  readonly id: number;
  due: number;
  readonly #call: Callback;
  readonly #args: unknown[];
  readonly #delay: number;
  readonly #repeats: boolean;
  #referenced = true;

  constructor(id: number, call: Callback, delay: unknown, args: unknown[], repeats: boolean) {
    const ms = Number(delay);
    this.id = id;
    this.#delay = ms >= 1 && ms <= MAX_DELAY_MS ? Math.trunc(ms) : 1;
    this.#call = call;
    this.#args = args;
    this.#repeats = repeats;
    this.due = native.monotonic() + this.#delay;
  }

  /** Runs the callback, after the timer was removed or set again. */
  fire(): void {
    if (this.#repeats) {
      this.due = native.monotonic() + this.#delay;
      pending.push(this);
    }
    this.#call.apply(this, this.#args);
  }

  /** Has no effect on the decision: each pending timer is waited for. */
  unref(): this {
    this.#referenced = false;
    return this;
  }
  ref(): this {
    this.#referenced = true;
    return this;
  }
  hasRef(): boolean {
    return this.#referenced;
  }
  refresh(): this {
    this.due = native.monotonic() + this.#delay;
    if (!pending.includes(this)) pending.push(this);
    return this;
  }
  close(): this {
    stop(this);
    return this;
  }
  [Symbol.toPrimitive](): number {
    return this.id;
  }
  [Symbol.dispose](): void {
    stop(this);
  }
}

let lastId = 0;
let pending: Timeout[] = [];
/** Functions of `setImmediate`, which run before timers. */
let immediate: Timeout[] = [];

function start(call: unknown, delay: unknown, args: unknown[], repeats: boolean): Timeout {
  if (typeof call !== "function") throw new TypeError("The callback of a timer must be a function");
  const timer = new Timeout(++lastId, call as Callback, delay, args, repeats);
  pending.push(timer);
  return timer;
}

function stop(timer: unknown): void {
  if (timer === undefined || timer === null || (pending.length === 0 && immediate.length === 0)) return;
  const id = typeof timer === "object" ? (timer as Timeout).id : Number(timer);
  pending = pending.filter((it) => it.id !== id);
  immediate = immediate.filter((it) => it.id !== id);
}

export function setTimeout(call: unknown, delay?: unknown, ...args: unknown[]): Timeout {
  return start(call, delay, args, false);
}
export function setInterval(call: unknown, delay?: unknown, ...args: unknown[]): Timeout {
  return start(call, delay, args, true);
}
export function setImmediate(call: unknown, ...args: unknown[]): Timeout {
  const timer = start(call, 0, args, false);
  pending.pop();
  immediate.push(timer);
  return timer;
}
export function clearTimeout(timer: unknown): void {
  stop(timer);
}

/** Called by the event loop: runs the first timer that is due and returns 0, or returns the time until the next one, in ms, if there is one. */
export function runTimer(): number | undefined {
  const next = immediate.shift();
  if (next) {
    next.fire();
    return 0;
  }
  if (pending.length === 0) return undefined;
  // By time, then in the order in which they were set.
  const first = pending.reduce((first, it) => (it.due < first.due || (it.due === first.due && it.id < first.id) ? it : first));
  const delay = first.due - native.monotonic();
  if (delay > 0) return delay;
  pending.splice(pending.indexOf(first), 1);
  first.fire();
  return 0;
}

const define = (name: string, value: unknown) => Object.defineProperty(globalThis, name, { value, writable: true, enumerable: true, configurable: true });
for (const it of [setTimeout, setInterval, setImmediate, clearTimeout]) define(it.name, it);
for (const name of ["clearInterval", "clearImmediate"]) define(name, (timer: unknown) => stop(timer));
