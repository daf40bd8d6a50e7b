// `performance`.
import { defineInterface, need } from "./define.ts";
import { EventTarget } from "./event.ts";

let allowed = false;

class PerformanceEntry {
  #entry: { name: string; entryType: string; startTime: number; duration: number; detail: unknown };

  constructor(name: string, entryType: string, startTime: number, duration: number, detail: unknown) {
    if (!allowed) throw new TypeError("Illegal constructor");
    this.#entry = { name, entryType, startTime, duration, detail };
  }

  get name(): string {
    return this.#entry.name;
  }
  get entryType(): string {
    return this.#entry.entryType;
  }
  get startTime(): number {
    return this.#entry.startTime;
  }
  get duration(): number {
    return this.#entry.duration;
  }
  get detail(): unknown {
    return this.#entry.detail;
  }
  toJSON(): object {
    return { ...this.#entry };
  }
}
defineInterface(PerformanceEntry, "PerformanceEntry");

let entries: PerformanceEntry[] = [];
let origin: number | undefined;

function add(...entry: ConstructorParameters<typeof PerformanceEntry>): PerformanceEntry {
  allowed = true;
  const made = new PerformanceEntry(...entry);
  allowed = false;
  entries.push(made);
  return made;
}

/** The time of a mark. */
function timeOf(mark: unknown): number {
  if (typeof mark === "number") return mark;
  const found = entries.findLast((it) => it.entryType === "mark" && it.name === `${mark as string}`);
  if (!found) throw new DOMException(`The "${mark as string}" performance mark has not been set`, "SyntaxError");
  return found.startTime;
}

function forget(type: string, name: string | undefined): void {
  entries = entries.filter((it) => it.entryType !== type || (name !== undefined && it.name !== `${name}`));
}

interface MeasureSettings {
  start?: string | number;
  end?: string | number;
  duration?: number;
  detail?: unknown;
}

class Performance extends EventTarget {
  constructor() {
    super();
    if (!allowed) throw new TypeError("Illegal constructor");
  }

  get timeOrigin(): number {
    return (origin ??= native.now() - native.monotonic());
  }

  now(): number {
    return native.monotonic();
  }

  mark(name: string, options: { startTime?: number; detail?: unknown } = {}): PerformanceEntry {
    need(1, arguments.length, "Performance.mark");
    return add(`${name}`, "mark", options.startTime ?? this.now(), 0, options.detail ?? null);
  }

  measure(name: string, startOrOptions: string | MeasureSettings | undefined = undefined, end: string | undefined = undefined): PerformanceEntry {
    need(1, arguments.length, "Performance.measure");
    const settings: MeasureSettings = typeof startOrOptions === "object" ? startOrOptions : { start: startOrOptions, end };
    const until = settings.end !== undefined ? timeOf(settings.end) : this.now();
    const from = settings.start !== undefined ? timeOf(settings.start) : settings.duration !== undefined ? until - settings.duration : 0;
    return add(`${name}`, "measure", from, settings.duration ?? until - from, settings.detail ?? null);
  }

  clearMarks(name: string | undefined = undefined): void {
    forget("mark", name);
  }
  clearMeasures(name: string | undefined = undefined): void {
    forget("measure", name);
  }
  getEntries(): PerformanceEntry[] {
    return [...entries].sort((a, b) => a.startTime - b.startTime);
  }
  getEntriesByName(name: string, type: string | undefined = undefined): PerformanceEntry[] {
    return this.getEntries().filter((it) => it.name === name && (type === undefined || it.entryType === type));
  }
  getEntriesByType(type: string): PerformanceEntry[] {
    return this.getEntries().filter((it) => it.entryType === type);
  }
  toJSON(): object {
    return { timeOrigin: this.timeOrigin };
  }
}
defineInterface(Performance, "Performance");
allowed = true;
const performance = new Performance();
allowed = false;

export { Performance, performance, PerformanceEntry };
