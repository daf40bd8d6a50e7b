// Detects uses of instance state (randomness, the clock, the network) while the build evaluates the app: it must not become part of the
// state that all instances share.

/** Called for each use, with text that completes "top-level code reads …". */
export type Note = (state: string) => void;

/** Watches until the returned function is called. References to watched functions then call the real functions. */
export function watch(note: Note): () => void {
  let watching = true;
  const undo: (() => void)[] = [];

  /** Replaces `name` of `owner`: while watching, it notes its use and calls `substitute` instead of the real function. */
  function stub(owner: object | undefined, name: string, state: string, substitute: (...args: never[]) => unknown): void {
    const real = owner && Reflect.get(owner, name) as ((...args: unknown[]) => unknown) | undefined;
    if (!owner || typeof real !== "function") return;
    const own = Object.getOwnPropertyDescriptor(owner, name);
    Object.defineProperty(owner, name, {
      configurable: true,
      writable: true,
      enumerable: own?.enumerable ?? true,
      value(this: unknown, ...args: unknown[]) {
        if (!watching) return real.apply(this, args);
        note(state);
        return substitute(...(args as never[]));
      },
    });
    undo.push(() => (own ? Object.defineProperty(owner, name, own) : Reflect.deleteProperty(owner, name)));
  }

  let counter = 0;
  stub(Math, "random", "Math.random()", () => (++counter % 1000) / 1000);
  const { crypto, performance } = globalThis;
  stub(crypto, "getRandomValues", "crypto.getRandomValues()", (array: unknown) => array);
  stub(crypto, "randomUUID", "crypto.randomUUID()", () => "00000000-0000-4000-8000-000000000000");
  stub(performance, "now", "performance.now()", () => 0);
  for (const name of ["setTimeout", "setInterval", "setImmediate"]) stub(globalThis, name, `${name}()`, () => 0);
  stub(globalThis, "fetch", "fetch()", () => new Promise(() => {}));

  const Real = Date;
  const Watched: DateConstructor = new Proxy(Real, {
    construct(target, args, newTarget) {
      if (watching && args.length === 0) {
        note("new Date()");
        args = [0];
      }
      return Reflect.construct(target, args, newTarget === Watched ? target : newTarget);
    },
    apply(target) {
      if (!watching) return target();
      note("Date()");
      return new Real(0).toString();
    },
  });
  stub(Real, "now", "Date.now()", () => 0);
  // Keeps `date.constructor === Date` true.
  Real.prototype.constructor = Watched;
  globalThis.Date = Watched;
  undo.push(() => {
    globalThis.Date = Real;
    Real.prototype.constructor = Real;
  });

  return () => {
    watching = false;
    for (const step of undo.reverse()) step();
  };
}
