// `AbortController` and `AbortSignal`.
import { setTimeout } from "../timers.ts";
import { defineInterface, need } from "./define.ts";
import { type Event, eventHandlers, EventTarget, trustedEvent } from "./event.ts";

let allowed = false;
/** A signal that is not aborted. */
export let newSignal: () => AbortSignal;
let abortSignal: (signal: AbortSignal, reason: unknown) => void;
/** Calls `work` before the listeners of the signal, when it is aborted. Returns a function that prevents it. */
export let onAbort: (signal: AbortSignal, work: (reason: unknown) => void) => () => void;

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason: unknown = undefined;
  #work: Set<(reason: unknown) => void> | undefined = undefined;
  /** The signals that abort this one, if it depends on others. */
  #sources: Set<AbortSignal> | undefined = undefined;

  constructor() {
    if (!allowed) throw new TypeError("Illegal constructor");
    super();
  }

  static {
    newSignal = () => {
      allowed = true;
      const signal = new AbortSignal();
      allowed = false;
      return signal;
    };
    abortSignal = (signal, reason) => {
      if (signal.#aborted) return;
      const all: AbortSignal[] = [];
      signal.#mark(reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason, all);
      for (const each of all) {
        const work = each.#work;
        each.#work = undefined;
        if (work) for (const one of work) one(each.#reason);
        each.dispatchEvent(trustedEvent("abort"));
      }
    };
    onAbort = (signal, work) => {
      if (signal.#aborted) {
        work(signal.#reason);
        return () => {};
      }
      (signal.#work ??= new Set()).add(work);
      return () => void signal.#work?.delete(work);
    };
  }

  static abort(reason: unknown = undefined): AbortSignal {
    const signal = newSignal();
    signal.#aborted = true;
    signal.#reason = reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason;
    return signal;
  }

  static timeout(delay: number): AbortSignal {
    need(1, arguments.length, "AbortSignal.timeout");
    const ms = Number(delay);
    if (!Number.isFinite(ms) || Math.trunc(ms) < 0 || ms > Number.MAX_SAFE_INTEGER) {
      throw new RangeError(`The value of "delay" is out of range. It must be >= 0 && <= ${Number.MAX_SAFE_INTEGER}. Received ${delay}`);
    }
    const signal = newSignal();
    const expire = () => abortSignal(signal, new DOMException("The operation was aborted due to timeout", "TimeoutError"));
    setTimeout(expire, Math.trunc(ms));
    return signal;
  }

  static any(signals: Iterable<AbortSignal>): AbortSignal {
    need(1, arguments.length, "AbortSignal.any");
    if (typeof (signals as { [Symbol.iterator]?: unknown } | null)?.[Symbol.iterator] !== "function") throw new TypeError("The signals are not iterable.");
    const all = [...signals];
    for (const signal of all) {
      if (typeof signal !== "object" || signal === null || !(#aborted in signal)) throw new TypeError("A signal is not an AbortSignal.");
    }
    const result = newSignal();
    const aborted = all.find((signal) => signal.#aborted);
    if (aborted) {
      result.#aborted = true;
      result.#reason = aborted.#reason;
      return result;
    }
    // A signal that depends on others is replaced by these, so that all dependents of a source are aborted before any event.
    result.#sources = new Set(all.flatMap((signal) => (signal.#sources ? [...signal.#sources] : [signal])));
    for (const source of result.#sources) (source.#dependents ??= new Set()).add(result);
    return result;
  }
  #dependents: Set<AbortSignal> | undefined = undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  get reason(): unknown {
    return this.#reason;
  }

  declare onabort: ((event: Event) => void) | null;

  throwIfAborted(): void {
    if (this.#aborted) throw this.#reason;
  }

  #mark(reason: unknown, all: AbortSignal[]): void {
    this.#aborted = true;
    this.#reason = reason;
    all.push(this);
    const dependents = this.#dependents;
    this.#dependents = undefined;
    if (dependents) for (const each of dependents) if (!each.#aborted) each.#mark(reason, all);
  }
}
defineInterface(AbortSignal, "AbortSignal");
eventHandlers(AbortSignal, ["abort"]);

class AbortController {
  #signal: AbortSignal | undefined = undefined;

  get signal(): AbortSignal {
    return (this.#signal ??= newSignal());
  }

  abort(reason: unknown = undefined): void {
    abortSignal(this.signal, reason);
  }
}
defineInterface(AbortController, "AbortController");

export { AbortController, AbortSignal };
