// Evaluation of the app at build. Top-level code runs once, here, and every instance starts with its result. A module whose top-level
// code reads state of an instance (settings, randomness, the clock), and every module that imports it, is evaluated in each instance.
import { setHost, type Host } from "../../src/host.ts";
import { cyclesOf } from "./cycles.ts";
import { DeferredModuleError, type Modules, type Program } from "./modules.ts";
import { codeStack } from "./stacks.ts";
import { watch } from "./watch.ts";

/** The result for the build's driver. Stacks have positions of the bundle's code. */
export interface Report {
  /** Uses of instance state by top-level code. */
  found: { module: string; state: string; stack: string }[];
  /** Modules that cannot be compiled or evaluated. */
  failed: { module: string; name: string; error: string; stack: string }[];
  printed: string[];
}

/** Compiles all modules, evaluates those that can be evaluated at build, and reports about the others. */
export async function preinitialize(program: Program, modules: Modules): Promise<Report> {
  const report: Report = { found: [], failed: [], printed: [] };
  const failed = (module: string, error: unknown) => {
    const { name, message, stack = "" } = error instanceof Error ? error : { name: "thrown", message: String(error) };
    report.failed.push({ module, name, error: `${name}: ${message}`, stack: codeStack(stack) });
  };
  for (const module of program.modules) {
    try {
      modules.add(module);
    } catch (error) {
      failed(module.id, error);
    }
  }
  if (report.failed.length > 0) return report;

  const deferred = new Set(program.lazy);
  const note = (state: string, module = modules.running.at(-1) ?? program.entry) => {
    deferred.add(module);
    report.found.push({ module, state, stack: codeStack(new Error().stack ?? "") });
  };
  // Keys and salts of `crypto.subtle`, most of whose methods use no randomness.
  const noteRandomness = (module: string) => {
    if (native.wasRandomnessRead()) note("randomness", module);
  };
  setHost(hostAtBuild(note, (line) => report.printed.push(line)));
  const unwatch = watch(note);
  const importsDeferred = (id: string) =>
    Object.values(imports.get(id) ?? {}).some((it) => deferred.has(it) && order.has(it));
  const imports = new Map(program.modules.map((it) => [it.id, it.imports]));
  const order = new Set(program.order);
  for (const cycle of cyclesOf(program.order, (id) => Object.values(imports.get(id) ?? {}))) {
    const isDeferred = () => cycle.some((id) => deferred.has(id));
    const defer = () => {
      for (const id of cycle) deferred.add(id);
    };
    if (!program.trial && (isDeferred() || cycle.some(importsDeferred))) {
      defer();
      continue;
    }
    try {
      modules.deferring(program.trial ? new Set() : deferred, () => {
        // The app enters a cycle at its first module. From another one on, modules would find exports that do not exist yet.
        for (const id of cycle) native.interruptible(() => modules.load(id));
      });
    } catch (error) {
      if (error instanceof Error && error.name === "Endless") {
        failed(modules.running.at(-1) ?? (cycle[0] as string), error);
        break;
      }
      // Modules of the cycle that ended have the exports of one that did not.
      modules.drop(cycle);
      if (!(error instanceof DeferredModuleError) && (program.trial || !isDeferred())) failed(modules.failedAt(error) ?? (cycle[0] as string), error);
      defer();
    }
    noteRandomness(cycle[0] as string);
    if (!program.trial && isDeferred()) defer();
  }
  // Run the microtasks that top-level code scheduled.
  for (let tick = 0; tick < 8; tick++) await undefined;
  noteRandomness(program.entry);
  unwatch();
  modules.settle();
  return report;
}

/** The host at build: it notes each call and returns a placeholder. */
export function hostAtBuild(note: (state: string) => void, print: (line: string) => void): Host {
  const noted = <T>(state: string, placeholder: T) => {
    note(state);
    return placeholder;
  };
  return {
    context: {
      now: () => noted("the clock", 0n),
      requestId: () => noted("the request's id", ""),
      action: () => noted("the request's action", "stream"),
      log: (level, line) => print(`${level}: ${line}`),
    },
    answer: {
      reason: () => note("the answer"),
      replaySince: () => note("the answer"),
      cacheFor: () => note("the answer"),
      cacheAnyAddress: () => note("the answer"),
    },
    lookup: {
      get: (key) => noted(`the store's ${JSON.stringify(key)}`, undefined),
      hashGet: (key) => noted(`the store's ${JSON.stringify(key)}`, undefined),
      setContains: (key) => noted(`the store's ${JSON.stringify(key)}`, false),
    },
    tokens: { verify: () => noted("a token", "{}"), verifyWith: () => noted("a token", "{}") },
    settings: { get: (name) => noted(`process.env.${name}`, undefined) },
  };
}
