// Timers of Node, and clocks that cannot be read at build.
import { replaceGlobal } from "./patch.ts";

replaceGlobal("setImmediate", (call: (...args: unknown[]) => void, ...args: unknown[]) => setTimeout(call, 0, ...args));
replaceGlobal("clearImmediate", (timer: number) => clearTimeout(timer));
