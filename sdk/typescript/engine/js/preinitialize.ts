// Evaluation of the app at build. Top-level code runs once, here, and every instance starts with its result. A module whose top-level
// code reads state of an instance (settings, randomness, the clock), and every module that imports it, is evaluated in each instance.
import type { App } from "./modules.ts";
import { DeferredModuleError, type Modules } from "./modules.ts";
import { setHost, type Host } from "../src/host.ts";
import { watch } from "./watch.ts";

/** The result for the build; build/build.mjs parses it. */
interface Report {
  /** Uses of instance state by top-level code. */
  found: { module: string; state: string; stack: string }[];
  /** Modules that cannot be evaluated. */
  failed: { module: string; error: string; stack: string }[];
  printed: string[];
}

/** Evaluates all modules that can be evaluated at build, and prints a report about the others. */
export async function preinitialize(app: App, modules: Modules, print: (line: string) => void): Promise<void> {
  const report: Report = { found: [], failed: [], printed: [] };
  const deferred = new Set(app.lazy);
  const note = (state: string) => {
    const module = modules.running.at(-1) ?? app.entry;
    deferred.add(module);
    report.found.push({ module, state, stack: new Error().stack ?? "" });
  };

  setHost(hostAtBuild(note, (line) => report.printed.push(line)));
  const unwatch = watch(note);
  for (const id of app.order) {
    if (deferred.has(id)) continue;
    if (Object.values(app.modules[id]?.imports ?? {}).some((it) => deferred.has(it) && app.order.includes(it))) {
      deferred.add(id);
      continue;
    }
    try {
      modules.deferring(deferred, () => modules.load(id));
    } catch (error) {
      if (error instanceof DeferredModuleError) deferred.add(id);
      else if (!deferred.has(id)) {
        deferred.add(id);
        const { name, message, stack = "" } = error instanceof Error ? error : { name: "thrown", message: String(error) };
        report.failed.push({ module: id, error: `${name}: ${message}`, stack });
      }
    }
  }
  // Run the microtasks that top-level code scheduled.
  for (let tick = 0; tick < 8; tick++) await undefined;
  unwatch();
  print(`\u0001tidegate ${JSON.stringify(report)}`);
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
