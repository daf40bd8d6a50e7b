// Helpers that install polyfills.

/** Defines methods and getters of `source` on `target`, non-enumerable like built-in ones. */
export function patch(target: object, source: object): void {
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(source))) {
    Object.defineProperty(target, name, { ...property, enumerable: false, configurable: true });
  }
}

/** Replaces a global of the engine. */
export function replaceGlobal(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
}
