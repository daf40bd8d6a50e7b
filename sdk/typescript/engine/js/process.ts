// A subset of `process`, whose environment has the policy's settings.
import { host } from "../../src/host.ts";

let nodeEnv = "production";

/** Variables for debugging and terminals, which packages read at top level. They are never settings, so reading them needs no instance. */
const OF_NODE = new Set(["FORCE_COLOR", "NODE_DEBUG", "NO_COLOR", "TERM"]);

/** Sets `NODE_ENV` where there is no setting of that name. */
export function setNodeEnv(value = "production"): void {
  nodeEnv = value;
}

/** Installs `process` and `global`. */
export function startProcess(): void {
  const env: Record<string, string | undefined> = Object.create(null);
  const setting = (name: string | symbol) => {
    if (typeof name !== "string" || OF_NODE.has(name)) return undefined;
    return host().settings.get(name) ?? (name === "NODE_ENV" ? nodeEnv : undefined);
  };
  const process = {
    env: new Proxy(env, {
      get: (own, name) => (Reflect.has(own, name) ? Reflect.get(own, name) : setting(name)),
      has: (own, name) => Reflect.has(own, name) || setting(name) !== undefined,
      set: (own, name, value) => Reflect.set(own, name, String(value)),
      // Schema libraries that check for own keys find the settings by name.
      getOwnPropertyDescriptor(own, name) {
        const found = Reflect.getOwnPropertyDescriptor(own, name);
        const value = found ? undefined : setting(name);
        return value === undefined ? found : { value, writable: true, enumerable: true, configurable: true };
      },
    }),
    argv: [] as string[],
    version: "",
    versions: {},
    platform: "wasi",
    cwd: () => "/",
    nextTick: (call: (...args: unknown[]) => void, ...args: unknown[]) => queueMicrotask(() => call(...args)),
    on() {
      return this;
    },
    once() {
      return this;
    },
    emitWarning: (warning: unknown) => console.warn(warning),
  };
  for (const [name, value] of Object.entries({ process, global: globalThis })) {
    Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  }
}
