// How the repairs are put in place.

/** Defines methods and getters of `source` on `target`, as built-in ones are: not enumerable. */
export function patch(target: object, source: object): void {
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(source))) {
    Object.defineProperty(target, name, { ...property, enumerable: false, configurable: true });
  }
}

/** Puts a global in place of the engine's. */
export function replaceGlobal(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
}
