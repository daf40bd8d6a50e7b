// `Headers`. Names and values are two arrays in the order of insertion, so that a request's own arrays are used without a copy, and a look-up
// is one native search.
import { defineInterface, ENTRIES, KEYS, need, pairIterators, VALUES } from "./define.ts";

/** What may change a list of headers. */
export type Guard = "none" | "immutable";

/** Names in lower case, and their values; a name may occur more than once. */
export type HeaderLists = [names: string[], values: string[]];

export let headerLists: (headers: Headers) => HeaderLists;
/** Headers of valid lists, which they keep. */
export let headersOf: (lists: HeaderLists, guard: Guard) => Headers;
export let isHeaders: (value: unknown) => value is Headers;

let change: (headers: Headers) => void;
let add: (headers: Headers, name: string, value: string, call: string) => void;
let fill: (headers: Headers, init: HeadersInit) => void;
/** The entries as iterated: sorted by name, the values of a name combined except those of `set-cookie`. */
let sorted: (headers: Headers) => HeaderLists;

const iterator = pairIterators("Headers");

class Headers {
  #names: string[] = [];
  #values: string[] = [];
  #guard: Guard = "none";
  /** The entries sorted and combined, until the next change. */
  #sorted: HeaderLists | undefined = undefined;

  constructor(init: HeadersInit | undefined = undefined) {
    if (init !== undefined) fill(this, init);
  }

  // Functions instead of private methods, which cost each object a property.
  static {
    headerLists = (headers) => [headers.#names, headers.#values];
    headersOf = ([names, values], guard) => {
      const headers = new Headers();
      headers.#names = names;
      headers.#values = values;
      headers.#guard = guard;
      return headers;
    };
    change = (headers) => {
      if (headers.#guard === "immutable") throw new TypeError("immutable");
      headers.#sorted = undefined;
    };
    add = (headers, name, value, call) => {
      const key = nameOf(name, call);
      const text = valueOf(value, call);
      change(headers);
      headers.#names.push(key);
      headers.#values.push(text);
    };
    fill = (headers, init) => {
      if (isHeaders(init) && init[Symbol.iterator] === Headers.prototype.entries) {
        const from = init as unknown as Headers;
        headers.#names = from.#names.slice();
        headers.#values = from.#values.slice();
        return;
      }
      if (init === null || (typeof init !== "object" && typeof init !== "function")) {
        throw new TypeError("Headers constructor: init given is not a record or a sequence of pairs.");
      }
      const sequence = (init as Iterable<Iterable<string>>)[Symbol.iterator];
      if (sequence !== undefined && sequence !== null) {
        if (typeof sequence !== "function") throw new TypeError("Headers constructor: init given is not iterable.");
        for (const pair of init as Iterable<Iterable<string>>) {
          if (typeof pair !== "object" || pair === null || typeof pair[Symbol.iterator] !== "function") {
            throw new TypeError("Headers constructor: expected a sequence of pairs of a name and a value.");
          }
          const [name, value, ...more] = pair as unknown as [string, string];
          const length = Array.isArray(pair) ? pair.length : [...(pair as Iterable<string>)].length;
          if (more.length > 0 || length !== 2) {
            throw new TypeError(`Headers constructor: expected name/value pair to be length 2, found ${length}.`);
          }
          add(headers, name, value, "Headers.append");
        }
        return;
      }
      for (const name of Object.keys(init)) add(headers, name, (init as Record<string, string>)[name] as string, "Headers.append");
      const symbols = Object.getOwnPropertySymbols(init);
      if (symbols.length > 0 && symbols.some((it) => Object.prototype.propertyIsEnumerable.call(init, it))) throw new TypeError("Cannot convert a Symbol value to a string");
    };
    sorted = (headers) => {
      if (headers.#sorted) return headers.#sorted;
      const [names, values] = [headers.#names, headers.#values];
      const sorted: HeaderLists = [[], []];
      for (const name of [...new Set(names)].sort()) {
        if (name === "set-cookie") {
          for (const value of headers.getSetCookie()) {
            sorted[0].push(name);
            sorted[1].push(value);
          }
        } else {
          sorted[0].push(name);
          sorted[1].push(combined(names, values, name, names.indexOf(name)));
        }
      }
      headers.#sorted = sorted;
      return sorted;
    };
    isHeaders = (value): value is Headers => typeof value === "object" && value !== null && #names in value;
  }

  append(name: string, value: string): void {
    need(2, arguments.length, "Headers.append");
    add(this, name, value, "Headers.append");
  }

  delete(name: string): void {
    need(1, arguments.length, "Headers.delete");
    const key = nameOf(name, "Headers.delete");
    change(this);
    for (let at = this.#names.indexOf(key); at >= 0; at = this.#names.indexOf(key, at)) {
      this.#names.splice(at, 1);
      this.#values.splice(at, 1);
    }
  }

  get(name: string): string | null {
    const key = KNOWN[name] ?? nameOf(name, "Headers.get");
    const at = this.#names.indexOf(key);
    if (at < 0) return null;
    return this.#names.indexOf(key, at + 1) < 0 ? (this.#values[at] as string) : combined(this.#names, this.#values, key, at);
  }

  getSetCookie(): string[] {
    return this.#values.filter((_, at) => this.#names[at] === "set-cookie");
  }

  has(name: string): boolean {
    return this.#names.includes(KNOWN[name] ?? nameOf(name, "Headers.has"));
  }

  set(name: string, value: string): void {
    need(2, arguments.length, "Headers.set");
    const key = nameOf(name, "Headers.set");
    const text = valueOf(value, "Headers.set");
    change(this);
    const names = this.#names;
    const first = names.indexOf(key);
    if (first < 0) {
      names.push(key);
      this.#values.push(text);
      return;
    }
    this.#values[first] = text;
    for (let at = names.indexOf(key, first + 1); at >= 0; at = names.indexOf(key, at)) {
      names.splice(at, 1);
      this.#values.splice(at, 1);
    }
  }

  forEach(callback: (value: string, name: string, headers: Headers) => void, self?: unknown): void {
    need(1, arguments.length, "Headers.forEach");
    if (typeof callback !== "function") throw new TypeError("Failed to execute 'forEach' on 'Headers': parameter 1 is not of type 'Function'.");
    for (const [name, value] of this) callback.call(self, value, name, this);
  }

  entries(): IterableIterator<[string, string]> {
    this.#names;
    return iterator(() => sorted(this), ENTRIES);
  }

  keys(): IterableIterator<string> {
    this.#names;
    return iterator(() => sorted(this), KEYS);
  }

  values(): IterableIterator<string> {
    this.#names;
    return iterator(() => sorted(this), VALUES);
  }

  declare [Symbol.iterator]: () => IterableIterator<[string, string]>;
}
Object.defineProperty(Headers.prototype, Symbol.iterator, { value: Headers.prototype.entries, writable: true, configurable: true });
defineInterface(Headers, "Headers");
export { Headers };

/** The values of a name, the first of which is at `at`. */
function combined(names: readonly string[], values: readonly string[], name: string, at: number): string {
  let all = values[at] as string;
  const separator = name === "cookie" ? "; " : ", ";
  for (let next = names.indexOf(name, at + 1); next >= 0; next = names.indexOf(name, next + 1)) all += separator + values[next];
  return all;
}

// Names in the forms that code writes: looking one up is cheaper than checking and lowering it.
const KNOWN: Record<string, string> = Object.create(null);
const COMMON = `Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Encoding Content-Length
  Content-Type Cookie Date ETag Forwarded Host If-Modified-Since If-None-Match Last-Event-ID Location Origin Pragma Range Referer
  Retry-After Set-Cookie Upstash-Telemetry-Sdk User-Agent Vary WWW-Authenticate X-Api-Key X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto
  X-Real-IP X-Request-Id Access-Control-Allow-Origin Sec-Fetch-Site Sec-Fetch-Mode Sec-Fetch-Dest`;
for (const name of COMMON.split(/\s+/)) KNOWN[name] = KNOWN[name.toLowerCase()] = name.toLowerCase();

/** A valid name in lower case. */
function nameOf(name: unknown, call: string): string {
  const text = `${name as string}`;
  const valid = KNOWN[text] ?? native.headerName(text);
  if (valid === undefined) throw new TypeError(`${call}: "${text}" is an invalid header name.`);
  return valid;
}

// eslint-disable-next-line no-control-regex
const NOT_BYTES = /[^\0-\xff]/;

/** A valid value without the blanks around it. */
function valueOf(value: unknown, call: string): string {
  const text = `${value as string}`;
  if (native.isHeaderValue(text)) return text;
  const odd = NOT_BYTES.exec(text);
  if (odd) {
    const at = odd.index;
    throw new TypeError(
      `Cannot convert argument to a ByteString because the character at index ${at} has a value of ${text.charCodeAt(at)} which is greater than 255.`,
    );
  }
  const trimmed = text.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  // eslint-disable-next-line no-control-regex
  if (/[\0\n\r]/.test(trimmed)) throw new TypeError(`${call}: "${trimmed}" is an invalid header value.`);
  return trimmed;
}
