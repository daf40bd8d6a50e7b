// The app's modules: each a function that is called once, as CommonJS has it, which is what the bundle turns every module into.

type Require = (name: string) => unknown;

/** One module: its code, and what the names that it imports mean. */
export interface AppModule {
  run(this: unknown, require: Require, module: { exports: unknown }, exports: unknown): void | Promise<void>;
  imports: Record<string, string>;
}

/** An app, as the build writes it. */
export interface App {
  modules: Record<string, AppModule>;
  /** The module of the route. */
  entry: string;
  /** What the entry imports, itself included, in the order in which it is evaluated. */
  order: string[];
  /** Modules whose top-level code is evaluated in every instance, as an earlier attempt of the build found out. */
  lazy: string[];
}

/** Thrown where the code of a module that is evaluated at build needs one that is not. */
export class NotYet extends Error {
  readonly module: string;

  constructor(module: string) {
    super(`${module} is evaluated in every instance`);
    this.module = module;
  }
}

/** The modules of an app, and which of them have been evaluated. */
export class Modules {
  /** The modules whose code is running now, the innermost last. */
  readonly running: string[] = [];
  readonly #app: App;
  readonly #done = new Map<string, { exports: unknown }>();
  /** While the build evaluates: which modules it must leave alone. */
  #held: ReadonlySet<string> | undefined;
  #fresh: string[] = [];
  /** An app with `await` at top level is one module, which is not done when it returns. */
  #pending: void | Promise<void> = undefined;

  constructor(app: App) {
    this.#app = app;
  }

  /** Evaluates what the entry needs, and gives its exports. */
  async evaluate(): Promise<unknown> {
    this.#fresh = [];
    const exports = this.load(this.#app.entry);
    await this.#pending;
    return exports;
  }

  /** Forgets what was evaluated in the last attempt, which failed. */
  forget(): void {
    for (const id of this.#fresh) this.#done.delete(id);
  }

  /** Calls `work`, while the modules of `held` cannot be had. */
  holding<T>(held: ReadonlySet<string>, work: () => T): T {
    this.#held = held;
    try {
      return work();
    } finally {
      this.#held = undefined;
    }
  }

  /** The exports of a module, which is evaluated if it has not been. */
  load(id: string): unknown {
    const done = this.#done.get(id);
    if (done) return done.exports;
    if (this.#held?.has(id)) throw new NotYet(id);
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
  if (found === undefined) throw new Error(`${id} requires ${JSON.stringify(name)} by a name that the build could not see`);
  return found;
}
