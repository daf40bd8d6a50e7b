// The build's part in evaluating the app. Top-level code runs once, here, and its outcome is in every instance; unless it reads
// what is an instance's own: settings, randomness, the clock. Such a module, and whatever imports it, is evaluated in each instance.
import type { App } from "./modules.ts";
import { NotYet, type Modules } from "./modules.ts";
import { setHost, type Host } from "../src/host.ts";
import { watch } from "./watch.ts";

/** What the build is told; build/componentize.mjs reads it. */
interface Report {
  /** A module that did what belongs to an instance: what it was, and where. */
  found: { module: string; what: string; stack: string }[];
  /** A module that cannot be evaluated at all. */
  failed: { module: string; error: string; stack: string }[];
  printed: string[];
}

/** Evaluates what can be evaluated at build, and says what cannot to `print`. */
export async function bake(app: App, modules: Modules, print: (line: string) => void): Promise<void> {
  const report: Report = { found: [], failed: [], printed: [] };
  const held = new Set(app.lazy);
  const here = () => modules.running.at(-1) ?? app.entry;
  const note = (what: string) => {
    const module = here();
    held.add(module);
    report.found.push({ module, what, stack: new Error().stack ?? "" });
  };

  setHost(hostAtBuild(note, (line) => report.printed.push(line)));
  const unwatch = watch(note);
  for (const id of app.order) {
    if (held.has(id)) continue;
    if (Object.values(app.modules[id]?.imports ?? {}).some((it) => held.has(it) && app.order.includes(it))) {
      held.add(id);
      continue;
    }
    try {
      modules.holding(held, () => modules.load(id));
    } catch (error) {
      if (error instanceof NotYet) held.add(id);
      else if (!held.has(id)) {
        held.add(id);
const { name, message, stack = "" } = error instanceof Error ? error : { name: "thrown", message: String(error) };
        report.failed.push({ module: id, error: `${name}: ${message}`, stack });
      }
    }
  }
  // Jobs that top-level code left behind belong to it.
  for (let turn = 0; turn < 8; turn++) await undefined;
  unwatch();
  print(`\u0001tidegate ${JSON.stringify(report)}`);
}

/** A host that knows nothing yet, and notes that it was asked. */
export function hostAtBuild(note: (what: string) => void, print: (line: string) => void): Host {
  const asked = <T>(what: string, answer: T) => {
    note(what);
    return answer;
  };
  return {
    context: {
      now: () => asked("the clock", 0n),
      requestId: () => asked("the request's id", ""),
      action: () => asked("the request's action", "stream"),
      log: (level, line) => print(`${level}: ${line}`),
    },
    answer: {
      reason: () => note("the answer"),
      replaySince: () => note("the answer"),
      cacheFor: () => note("the answer"),
      cacheAnyAddress: () => note("the answer"),
    },
    lookup: {
      get: (key) => asked(`the store's ${JSON.stringify(key)}`, undefined),
      hashGet: (key) => asked(`the store's ${JSON.stringify(key)}`, undefined),
      setContains: (key) => asked(`the store's ${JSON.stringify(key)}`, false),
    },
    tokens: { verify: () => asked("a token", "{}"), verifyWith: () => asked("a token", "{}") },
    settings: { get: (name) => asked(`process.env.${name}`, undefined) },
  };
}
