// `node:async_hooks`: a store for one decision at a time.
declare const module: { exports: unknown };

/**
 * An instance decides once, so the store of `run` stays until its callback, or the promise that it returns, ends. Callbacks may be nested.
 * Those that overlap, in `Promise.all`, would see each other's store: they fail.
 */
class AsyncLocalStorage<Store> {
  #store: Store | undefined;

  getStore(): Store | undefined {
    return this.#store;
  }

  run<Result>(store: Store, call: (...args: unknown[]) => Result, ...args: unknown[]): Result {
    const before = this.#store;
    const leave = () => {
      const found = this.#store;
      this.#store = before;
      if (found !== store) throw new Error("AsyncLocalStorage: callbacks with different stores overlap, which a policy cannot tell apart");
    };
    this.#store = store;
    let result: Result;
    try {
      result = call(...args);
    } catch (error) {
      this.#store = before;
      throw error;
    }
    if (result instanceof Promise) return result.finally(leave) as Result;
    leave();
    return result;
  }

  exit<Result>(call: (...args: unknown[]) => Result, ...args: unknown[]): Result {
    const before = this.#store;
    this.#store = undefined;
    try {
      return call(...args);
    } finally {
      this.#store = before;
    }
  }

  enterWith(store: Store): void {
    this.#store = store;
  }

  disable(): void {
    this.#store = undefined;
  }

  static bind<Call>(call: Call): Call {
    return call;
  }

  static snapshot() {
    return (call: (...args: unknown[]) => unknown, ...args: unknown[]) => call(...args);
  }
}

/** A resource without hooks. */
class AsyncResource {
  readonly type: string;

  constructor(type: string) {
    this.type = type;
  }

  runInAsyncScope<Result>(call: (...args: unknown[]) => Result, self?: unknown, ...args: unknown[]): Result {
    return call.apply(self, args);
  }

  emitDestroy(): this {
    return this;
  }

  static bind<Call>(call: Call): Call {
    return call;
  }
}

module.exports = { AsyncLocalStorage, AsyncResource, executionAsyncId: () => 1, triggerAsyncId: () => 0 };
