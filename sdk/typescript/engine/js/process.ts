// A subset of `process`, whose environment has the policy's settings.
import { host } from "../src/host.ts";

/** Installs `process` and `global`. */
export function startProcess(): void {
  const env: Record<string, string | undefined> = Object.create(null);
  env.NODE_ENV = "production";
  const setting = (name: string | symbol) => (typeof name === "string" ? (host().settings.get(name) ?? undefined) : undefined);
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
  Object.assign(globalThis, { process, global: globalThis });
}
