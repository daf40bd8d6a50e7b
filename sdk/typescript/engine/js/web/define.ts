// Properties as Web IDL defines them, and conversions of its types.

/** Defines globals, which are not enumerable. */
export function defineGlobals(values: object): void {
  for (const [name, value] of Object.entries(values)) {
    Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  }
}

/** The prototypes of interfaces. */
export const platformPrototypes = new WeakSet<object>();

/** Makes a class an interface: its members are enumerable, and its instances have the class's name as tag. */
export function defineInterface(type: Function, name: string): void {
  platformPrototypes.add(type.prototype);
  // The bundler renames some classes.
  Object.defineProperty(type, "name", { value: name, configurable: true });
  for (const target of [type, type.prototype]) {
    for (const [key, property] of Object.entries(Object.getOwnPropertyDescriptors(target))) {
      const isMember = key !== "constructor" && key !== "prototype" && key !== "length" && key !== "name" && !key.startsWith("_");
      if (isMember && property.configurable) Object.defineProperty(target, key, { ...property, enumerable: true });
    }
  }
  Object.defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });
}

/** A string without lone surrogates. */
export function usv(value: unknown): string {
  const text = `${value as string}`;
  return text.isWellFormed() ? text : text.toWellFormed();
}

/** Throws if a call has too few arguments. */
export function need(count: number, given: number, call: string): void {
  if (given < count) throw new TypeError(`${call}: ${count} argument${count === 1 ? "" : "s"} required, but only ${given} present.`);
}

/** A converted dictionary: `undefined` and `null` are an empty one. */
export function dictionary<T extends object>(value: T | null | undefined, what: string): Partial<T> {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object" && typeof value !== "function") throw new TypeError(`${what} is not an object.`);
  return value;
}

const iteratorPrototype = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));

/** What an iterator of a list of pairs gives. */
export const ENTRIES = 0;
export const KEYS = 1;
export const VALUES = 2;
type Kind = typeof ENTRIES | typeof KEYS | typeof VALUES;

/** Names and values of the same length, read again at each step: a list may change while it is iterated. */
export type Lists = () => readonly [names: readonly string[], values: readonly unknown[]];

/** The iterators of an interface with pairs: `make` returns one. */
export function pairIterators(tag: string): (lists: Lists, kind: Kind) => IterableIterator<any> {
  class PairIterator {
    #lists: Lists;
    #kind: Kind;
    #at = 0;

    constructor(lists: Lists, kind: Kind) {
      this.#lists = lists;
      this.#kind = kind;
    }

    next(): IteratorResult<unknown> {
      const [names, values] = this.#lists();
      const at = this.#at;
      if (at >= names.length) return { value: undefined, done: true };
      this.#at = at + 1;
      const value = this.#kind === KEYS ? names[at] : this.#kind === VALUES ? values[at] : [names[at], values[at]];
      return { value, done: false };
    }
  }
  Object.setPrototypeOf(PairIterator.prototype, iteratorPrototype);
  delete (PairIterator.prototype as { constructor?: unknown }).constructor;
  Object.defineProperty(PairIterator.prototype, "next", { enumerable: true });
  Object.defineProperty(PairIterator.prototype, Symbol.toStringTag, { value: `${tag} Iterator`, configurable: true });
  return (lists, kind) => new PairIterator(lists, kind) as unknown as IterableIterator<any>;
}
