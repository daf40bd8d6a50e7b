// Watches what belongs to one instance while the build evaluates the app: nothing of it may get into what all instances share.

/** Told of each use, in words that end "top-level code reads …". */
export type Note = (what: string) => void;

/** Watches, until the function that this returns is called. What code has kept of the watched functions then does the real thing. */
export function watch(note: Note): () => void {
  let watching = true;
  const undo: (() => void)[] = [];

  /** While watching, `name` of `owner` notes its use and answers with `stand`; the real thing is never called. */
  function stand(owner: object, name: string, what: string, stand: (...args: never[]) => unknown): void {
    const real = Reflect.get(owner, name) as ((...args: unknown[]) => unknown) | undefined;
    if (typeof real !== "function") return;
    const own = Object.getOwnPropertyDescriptor(owner, name);
    Object.defineProperty(owner, name, {
      configurable: true,
      writable: true,
      enumerable: own?.enumerable ?? true,
      value(this: unknown, ...args: unknown[]) {
        if (!watching) return real.apply(this, args);
        note(what);
        return stand(...(args as never[]));
      },
    });
    undo.push(() => (own ? Object.defineProperty(owner, name, own) : Reflect.deleteProperty(owner, name)));
  }

  let counter = 0;
  stand(Math, "random", "Math.random()", () => (++counter % 1000) / 1000);
  stand(crypto, "getRandomValues", "crypto.getRandomValues()", (array: unknown) => array);
  stand(crypto, "randomUUID", "crypto.randomUUID()", () => "00000000-0000-4000-8000-000000000000");
  for (const name of Object.getOwnPropertyNames(SubtleCrypto.prototype)) {
    if (name !== "constructor") stand(SubtleCrypto.prototype, name, `crypto.subtle.${name}()`, () => new Promise(() => {}));
  }
  stand(performance, "now", "performance.now()", () => 0);
  for (const name of ["setTimeout", "setInterval", "setImmediate"]) stand(globalThis, name, `${name}()`, () => 0);
  stand(globalThis, "fetch", "fetch()", () => new Promise(() => {}));

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
  stand(Real, "now", "Date.now()", () => 0);
  // Otherwise `date.constructor === Date` would tell.
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
