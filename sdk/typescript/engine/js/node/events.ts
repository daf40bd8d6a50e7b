// `node:events`: synchronous emitters.
declare const module: { exports: unknown };

type Listener = ((...args: unknown[]) => void) & { listener?: Listener };
type Name = string | symbol;

const LISTENERS = Symbol("listeners");

interface Emitter {
  [LISTENERS]?: Map<Name, Listener[]>;
}

/** A function rather than a class, because old packages call it on their own objects. */
function EventEmitter(this: Emitter): void {
  this[LISTENERS] ??= new Map();
}

const listenersOf = (emitter: Emitter, name: Name) => emitter[LISTENERS]?.get(name) ?? [];

function add(emitter: Emitter, name: Name, listener: Listener, isFirst = false): Emitter {
  const all = listenersOf(emitter, name);
  (emitter[LISTENERS] ??= new Map()).set(name, isFirst ? [listener, ...all] : [...all, listener]);
  return emitter;
}

function onceOf(emitter: Emitter & { removeListener(name: Name, listener: Listener): unknown }, name: Name, listener: Listener): Listener {
  const wrapper: Listener = function (this: unknown, ...args) {
    emitter.removeListener(name, wrapper);
    listener.apply(this, args);
  };
  wrapper.listener = listener;
  return wrapper;
}

const methods = {
  on(this: Emitter, name: Name, listener: Listener) {
    return add(this, name, listener);
  },
  prependListener(this: Emitter, name: Name, listener: Listener) {
    return add(this, name, listener, true);
  },
  once(this: Emitter & typeof methods, name: Name, listener: Listener) {
    return add(this, name, onceOf(this as never, name, listener));
  },
  prependOnceListener(this: Emitter & typeof methods, name: Name, listener: Listener) {
    return add(this, name, onceOf(this as never, name, listener), true);
  },
  removeListener(this: Emitter, name: Name, listener: Listener) {
    const all = listenersOf(this, name);
    const at = all.findLastIndex((it) => it === listener || it.listener === listener);
    if (at >= 0) this[LISTENERS]?.set(name, all.toSpliced(at, 1));
    return this;
  },
  removeAllListeners(this: Emitter, name?: Name) {
    if (name === undefined) this[LISTENERS]?.clear();
    else this[LISTENERS]?.delete(name);
    return this;
  },
  emit(this: Emitter, name: Name, ...args: unknown[]) {
    const all = listenersOf(this, name);
    if (all.length === 0 && name === "error") throw args[0] instanceof Error ? args[0] : new Error(`unhandled error: ${String(args[0])}`);
    for (const listener of all) listener.apply(this, args);
    return all.length > 0;
  },
  listeners(this: Emitter, name: Name) {
    return listenersOf(this, name).map((it) => it.listener ?? it);
  },
  rawListeners(this: Emitter, name: Name) {
    return [...listenersOf(this, name)];
  },
  listenerCount(this: Emitter, name: Name) {
    return listenersOf(this, name).length;
  },
  eventNames(this: Emitter) {
    return [...(this[LISTENERS] ?? [])].filter(([, all]) => all.length > 0).map(([name]) => name);
  },
  setMaxListeners(this: Emitter) {
    return this;
  },
  getMaxListeners: () => 10,
};

Object.assign(EventEmitter.prototype, methods, { addListener: methods.on, off: methods.removeListener });

/** A promise of the arguments of the next event. */
function once(emitter: Emitter & typeof methods, name: Name): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    emitter.once(name, (...args) => resolve(args));
    if (name !== "error") emitter.once("error", reject);
  });
}

module.exports = Object.assign(EventEmitter, { EventEmitter, once, defaultMaxListeners: 10, errorMonitor: Symbol("events.errorMonitor") });
