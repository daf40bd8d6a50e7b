// The app's modules: CommonJS functions, each called once.
import { builtins } from "./builtins.ts";

type Require = (name: string) => unknown;
type Run = (this: unknown, require: Require, module: { exports: unknown }, exports: unknown) => void | Promise<void>;

/** A module as the build writes it. */
export interface ProgramModule {
  /** Its file, as in stacks. */
  id: string;
  /** The ids of its imports, by the names in its code. */
  imports: Record<string, string>;
  /** The length of its function's head, on the first line of its code. */
  shift: number;
  /** A source map, for the user's own modules. */
  map?: string;
  /** For an ES module that the app does not seem to use: the names of its exports. The first access to one of them evaluates it. */
  spare?: string[];
  /** The names of exports that keep their values after the evaluation. */
  constants?: string[];
}

/** The app as the build writes it. */
export interface Program {
  modules: ProgramModule[];
  /** The id of the route's module. */
  entry: string;
  /** The entry and all modules that it imports, in the order of their evaluation. */
  order: string[];
  /** Modules whose top-level code is evaluated in every instance, found by earlier attempts of the build. */
  lazy: string[];
  /** Evaluate all modules, also those of `lazy` and what imports them: the result is a report and no snapshot. */
  trial?: boolean;
  /** `process.env.NODE_ENV` where there is no setting of that name. */
  nodeEnv?: string;
}

/** A compiled module. */
interface AppModule {
  run: Run;
  imports: Record<string, string>;
  constants: string[] | undefined;
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
  readonly #entry: string;
  readonly #compiled = new Map<string, AppModule>();
  readonly #spare = new Map<string, ProgramModule>();
  readonly #done = new Map<string, { exports: unknown }>();
  /** The last error of a module, with the innermost module. */
  #failure: { error: unknown; module: string } | undefined;
  /** At build: modules that must not be evaluated. */
  #deferred: ReadonlySet<string> | undefined;
  /** Modules of the last attempt. */
  #fresh: string[] = [];
  /** An app with `await` at top level is one module, which is still running when its function returns. */
  #pending: void | Promise<void> = undefined;

  constructor(entry: string) {
    this.#entry = entry;
  }

  /** Adds a compiled module. Throws its `SyntaxError`. */
  add(module: ProgramModule): void {
    const { id, imports, constants } = module;
    if (module.spare) this.#spare.set(id, module);
    else this.#compiled.set(id, { imports, constants, run: native.module(id) as Run });
  }

  /** Evaluates the entry and its imports, and returns the entry's exports. */
  async evaluate(): Promise<unknown> {
    this.#fresh = [];
    const exports = this.load(this.#entry);
    await this.#pending;
    return exports;
  }

  /** The entry's exports, if it was evaluated at build. */
  evaluated(): unknown {
    return this.#done.get(this.#entry)?.exports;
  }

  /** Forgets the modules of the last attempt, which failed. */
  forget(): void {
    for (const id of this.#fresh) this.#done.delete(id);
  }

  /** Forgets these modules. */
  drop(ids: string[]): void {
    for (const id of ids) this.#done.delete(id);
  }

  /** Ends the build: what only an evaluation needs is given up. */
  settle(): void {
    for (const id of this.#done.keys()) this.#compiled.delete(id);
    for (const module of [...this.#compiled.values(), ...this.#spare.values()]) module.constants = undefined;
  }

  /** The module whose code threw this error. */
  failedAt(error: unknown): string | undefined {
    return this.#failure?.error === error ? this.#failure?.module : undefined;
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
    const spare = this.#spare.get(id);
    if (spare) {
      const exports = this.#spareExports(spare);
      this.#done.set(id, { exports });
      return exports;
    }
    if (this.#deferred?.has(id)) throw new DeferredModuleError(id);
    const builtin = builtins[id];
    if (builtin) return builtin;
    const compiled = this.#compiled.get(id);
    if (!compiled) throw new Error(`no module ${id}`);

    const module = { exports: {} as unknown };
    this.#done.set(id, module);
    this.#fresh.push(id);
    try {
      this.#pending = this.#run(id, compiled, module);
    } catch (error) {
      this.#done.delete(id);
      throw error;
    }
    return module.exports;
  }

  #run(id: string, { imports, run, constants }: AppModule, module: { exports: unknown }): void | Promise<void> {
    this.running.push(id);
    try {
      const pending = run.call(module.exports, (name) => this.load(target(imports, id, name)), module, module.exports);
      // At build: getters cost memory, and time in each decision.
      if (this.#deferred && constants) fix(module.exports as Record<string, unknown>, constants);
      return pending;
    } catch (error) {
      if (this.#failure?.error !== error) this.#failure = { error, module: id };
      throw error;
    } finally {
      this.running.pop();
    }
  }

  /** Exports whose properties become those of the module when one of them is first read. */
  #spareExports(program: ProgramModule): object {
    const { id, imports, spare = [] } = program;
    const exports = Object.defineProperty({}, "__esModule", { value: true });
    let run: Run | undefined;
    let module: { exports: Record<string, unknown> } | undefined;
    const evaluated = () => {
      // Modules that it imports may read its exports while it runs.
      if (module) return module.exports;
      if (this.#deferred?.has(id)) throw new DeferredModuleError(id);
      module = { exports: {} };
      try {
        // It stays after an error: the snapshot has the code only of modules that were not asked for.
        run ??= native.module(id) as Run;
        this.#run(id, { imports, run, constants: program.constants }, module);
      } catch (error) {
        module = undefined;
        throw error;
      }
      return Object.defineProperties(exports, Object.getOwnPropertyDescriptors(module.exports)) as Record<string, unknown>;
    };
    for (const name of spare) Object.defineProperty(exports, name, { get: () => evaluated()[name], enumerable: true, configurable: true });
    return exports;
  }
}

/** Replaces getters by their values. */
function fix(exports: Record<string, unknown>, names: string[]): void {
  for (const name of names) Object.defineProperty(exports, name, { value: exports[name], enumerable: true, configurable: false });
}

function target(imports: Record<string, string>, id: string, name: string): string {
  const found = imports[name];
  if (found === undefined) throw new Error(`${id} requires ${JSON.stringify(name)}, a name that the build could not resolve`);
  return found;
}
