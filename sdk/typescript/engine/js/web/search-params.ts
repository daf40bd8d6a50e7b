// `URLSearchParams`.
import { defineInterface, ENTRIES, KEYS, need, pairIterators, usv, VALUES } from "./define.ts";

const iterator = pairIterators("URLSearchParams");

/** The URL that the parameters belong to. */
type Owner = object;

let setQuery: (owner: Owner, query: string) => void;
/** Sets the function that gives a URL another query. */
export function onChange(set: typeof setQuery): void {
  setQuery = set;
}

/** Parameters of a URL, which gets the query after each change. */
export let paramsOf: (query: string, owner: Owner) => URLSearchParams;
/** Replaces the parameters, without a change of the URL. */
export let setParams: (params: URLSearchParams, query: string) => void;
export let isSearchParams: (value: unknown) => value is URLSearchParams;

type Init = string | Iterable<Iterable<string>> | Record<string, string>;

let parse: (params: URLSearchParams, query: string) => void;
let update: (params: URLSearchParams) => void;
let remove: (params: URLSearchParams, name: string, value: string | undefined, from: number) => void;
let fill: (params: URLSearchParams, init: Exclude<Init, string>) => void;

class URLSearchParams {
  #names: string[] = [];
  #values: string[] = [];
  #owner: Owner | undefined = undefined;

  constructor(init: Init | undefined = undefined) {
    if (init === undefined) return;
    if (typeof init === "object" || typeof init === "function") {
      if (init !== null) {
        fill(this, init);
        return;
      }
    }
    const text = usv(init);
    parse(this, text.startsWith("?") ? text.slice(1) : text);
  }

  // Functions instead of private methods, which cost each object a property.
  static {
    paramsOf = (query, owner) => {
      const params = new URLSearchParams();
      if (query !== "") parse(params, query);
      params.#owner = owner;
      return params;
    };
    setParams = (params, query) => parse(params, query);
    parse = (params, query) => {
      [params.#names, params.#values] = query === "" ? [[], []] : native.queryPairs(query);
    };

    update = (params) => {
      if (params.#owner) setQuery(params.#owner, params.toString());
    };

    remove = (params, name, value, from) => {
      for (let at = params.#names.indexOf(name, from); at >= 0; at = params.#names.indexOf(name, at)) {
        if (value !== undefined && params.#values[at] !== value) {
          at += 1;
          continue;
        }
        params.#names.splice(at, 1);
        params.#values.splice(at, 1);
      }
    };

    fill = (params, init) => {
      const sequence = (init as Iterable<Iterable<string>>)[Symbol.iterator];
      if (sequence === undefined || sequence === null) {
        // A later name that becomes the same by the conversion replaces the value of the first.
        for (const key of Reflect.ownKeys(init)) {
          if (!Object.prototype.propertyIsEnumerable.call(init, key)) continue;
          const [name, value] = [usv(key), usv((init as Record<string, string>)[key as string])];
          const at = params.#names.indexOf(name);
          if (at < 0) {
            params.#names.push(name);
            params.#values.push(value);
          } else params.#values[at] = value;
        }
        return;
      }
      if (typeof sequence !== "function") throw new TypeError("Query pairs must be iterable");
      for (const pair of init as Iterable<Iterable<string>>) {
        if (typeof pair !== "object" || pair === null || typeof pair[Symbol.iterator] !== "function") {
          throw new TypeError("Each query pair must be an iterable [name, value] tuple");
        }
        const items = [...pair];
        if (items.length !== 2) throw new TypeError("Each query pair must be an iterable [name, value] tuple");
        params.#names.push(usv(items[0]));
        params.#values.push(usv(items[1]));
      }
    };
    isSearchParams = (value): value is URLSearchParams => typeof value === "object" && value !== null && #names in value;
  }

  get size(): number {
    return this.#names.length;
  }

  append(name: string, value: string): void {
    this.#names;
    need(2, arguments.length, "URLSearchParams.append");
    this.#names.push(usv(name));
    this.#values.push(usv(value));
    update(this);
  }

  delete(name: string, value: string | undefined = undefined): void {
    this.#names;
    need(1, arguments.length, "URLSearchParams.delete");
    const key = usv(name);
    const only = value === undefined ? undefined : usv(value);
    remove(this, key, only, 0);
    update(this);
  }

  get(name: string): string | null {
    const at = this.#names.indexOf(usv(name));
    return at < 0 ? null : (this.#values[at] as string);
  }

  getAll(name: string): string[] {
    const [names, values, key] = [this.#names, this.#values, usv(name)];
    const found: string[] = [];
    for (let at = names.indexOf(key); at >= 0; at = names.indexOf(key, at + 1)) found.push(values[at] as string);
    return found;
  }

  has(name: string, value: string | undefined = undefined): boolean {
    const key = usv(name);
    if (value === undefined) return this.#names.includes(key);
    const text = usv(value);
    return this.#names.some((it, at) => it === key && this.#values[at] === text);
  }

  set(name: string, value: string): void {
    this.#names;
    need(2, arguments.length, "URLSearchParams.set");
    const [key, text] = [usv(name), usv(value)];
    const at = this.#names.indexOf(key);
    if (at < 0) {
      this.#names.push(key);
      this.#values.push(text);
    } else {
      this.#values[at] = text;
      remove(this, key, undefined, at + 1);
    }
    update(this);
  }

  sort(): void {
    const [names, values] = [this.#names, this.#values];
    const order = names.map((_, at) => at).sort((a, b) => compare(names[a] as string, names[b] as string));
    this.#names = order.map((at) => names[at] as string);
    this.#values = order.map((at) => values[at] as string);
    update(this);
  }

  forEach(callback: (value: string, name: string, params: URLSearchParams) => void, self: unknown = undefined): void {
    this.#names;
    need(1, arguments.length, "URLSearchParams.forEach");
    if (typeof callback !== "function") throw new TypeError('The "callback" argument must be of type function.');
    for (let at = 0; at < this.#names.length; at++) callback.call(self, this.#values[at] as string, this.#names[at] as string, this);
  }

  entries(): IterableIterator<[string, string]> {
    this.#names;
    return iterator(() => [this.#names, this.#values], ENTRIES);
  }

  keys(): IterableIterator<string> {
    this.#names;
    return iterator(() => [this.#names, this.#values], KEYS);
  }

  values(): IterableIterator<string> {
    this.#names;
    return iterator(() => [this.#names, this.#values], VALUES);
  }

  toString(): string {
    return this.#names.length === 0 ? "" : native.queryText(this.#names, this.#values);
  }

  declare [Symbol.iterator]: () => IterableIterator<[string, string]>;
}
Object.defineProperty(URLSearchParams.prototype, Symbol.iterator, { value: URLSearchParams.prototype.entries, writable: true, configurable: true });
defineInterface(URLSearchParams, "URLSearchParams");
export { URLSearchParams };

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
