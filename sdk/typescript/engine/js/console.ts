// `console` writes to the gateway's log, one line per call.
import inspect from "object-inspect";
import { host, type Level } from "../../src/host.ts";
import { sourceStack } from "./stacks.ts";

let quiet = false;

/** Calls `work` and lowers its log level to debug: top-level code prints the same in every instance. */
export async function quietly<T>(work: () => Promise<T>): Promise<T> {
  quiet = true;
  try {
    return await work();
  } finally {
    quiet = false;
  }
}

/** Installs `console`. */
export function startConsole(): void {
  const at =
    (level: Level) =>
    (...args: unknown[]) =>
      host().context.log(quiet && level !== "error" ? "debug" : level, format(args));
  const nothing = () => {};
  const console = {
    debug: at("debug"),
    log: at("info"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    trace: at("debug"),
    dir: (value: unknown) => at("info")(value),
    table: (value: unknown) => at("info")(value),
    assert(condition: unknown, ...args: unknown[]) {
      if (!condition) at("error")("Assertion failed:", ...args);
    },
    group: at("info"),
    groupCollapsed: at("info"),
    groupEnd: nothing,
    clear: nothing,
    count: nothing,
    countReset: nothing,
    time: nothing,
    timeEnd: nothing,
    timeLog: nothing,
  };
  Object.defineProperty(globalThis, "console", { value: console, writable: true, enumerable: false, configurable: true });
}

function format(args: unknown[]): string {
  const rest = [...args];
  let line = "";
  if (typeof rest[0] === "string" && rest.length > 1) {
    line = (rest.shift() as string).replace(/%([sdifjoOc%])/g, (all, kind: string) => {
      if (kind === "%") return "%";
      if (rest.length === 0) return all;
      const value = rest.shift();
      if (kind === "c") return "";
      if (kind === "s") return show(value);
      if (kind === "d") return String(Number(value));
      if (kind === "i") return String(parseInt(String(value), 10));
      if (kind === "f") return String(parseFloat(String(value)));
      return show(value);
    });
  }
  return [...(line ? [line] : []), ...rest.map(show)].join(" ");
}

function show(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) {
    const cause = value.cause === undefined ? "" : `\n  [cause] ${show(value.cause)}`;
    const stack = sourceStack(String(value.stack ?? ""));
    return `${value.name}: ${value.message}${stack && `\n${stack}`}${cause}`;
  }
  return inspect(value, { depth: 4 });
}
