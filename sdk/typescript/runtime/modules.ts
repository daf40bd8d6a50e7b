// The app's modules. The bundle converts each module to a CommonJS function that is called once.

type Require = (name: string) => unknown;

/** A module: its code, and the module ids of its imports by name. */
export interface AppModule {
  run(this: unknown, require: Require, module: { exports: unknown }, exports: unknown): void | Promise<void>;
  imports: Record<string, string>;
}

/** The app as written by the build. */
export interface App {
  modules: Record<string, AppModule>;
  /** The id of the route's module. */
  entry: string;
  /** The entry and all modules that it imports, in the order of their evaluation. */
  order: string[];
  /** Modules whose top-level code is evaluated in every instance, found by earlier attempts of the build. */
  lazy: string[];
}

/** Thrown when a module that is evaluated at build requires a module that is evaluated in every instance. */
export class DeferredModuleError extends Error {
  readonly module: string;

  constructor(module: string) {
    super(`${module} is evaluated in every instance`);
    this.module = module;
  }
}

/** The modules of an app, and the exports of those that were evaluated. */
export class Modules {
  /** The stack of running modules, the innermost last. */
  readonly running: string[] = [];
  readonly #app: App;
  readonly #done = new Map<string, { exports: unknown }>();
  /** At build: modules that must not be evaluated. */
  #deferred: ReadonlySet<string> | undefined;
  /** Modules of the last attempt. */
  #fresh: string[] = [];
  /** An app with `await` at top level is one module, which is still running when its function returns. */
  #pending: void | Promise<void> = undefined;

  constructor(app: App) {
    this.#app = app;
  }

  /** Evaluates the entry and its imports, and returns the entry's exports. */
  async evaluate(): Promise<unknown> {
    this.#fresh = [];
    const exports = this.load(this.#app.entry);
    await this.#pending;
    return exports;
  }

  /** Forgets the modules of the last attempt, which failed. */
  forget(): void {
    for (const id of this.#fresh) this.#done.delete(id);
  }

  /** Calls `work`; meanwhile loading a module of `deferred` throws. */
  deferring<T>(deferred: ReadonlySet<string>, work: () => T): T {
    this.#deferred = deferred;
    try {
      return work();
    } finally {
      this.#deferred = undefined;
    }
  }

  /** Returns the exports of a module, and evaluates it on first use. */
  load(id: string): unknown {
    const done = this.#done.get(id);
    if (done) return done.exports;
    if (this.#deferred?.has(id)) throw new DeferredModuleError(id);
    const code = this.#app.modules[id];
    if (!code) throw new Error(`no module ${id}`);

    const module = { exports: {} as unknown };
    this.#done.set(id, module);
    this.#fresh.push(id);
    this.running.push(id);
    try {
      this.#pending = code.run.call(module.exports, (name) => this.load(target(code, id, name)), module, module.exports);
    } catch (error) {
      this.#done.delete(id);
      throw error;
    } finally {
      this.running.pop();
    }
    return module.exports;
  }
}

function target(code: AppModule, id: string, name: string): string {
  const found = code.imports[name];
  if (found === undefined) throw new Error(`${id} requires ${JSON.stringify(name)}, a name that the build could not resolve`);
  return found;
}
