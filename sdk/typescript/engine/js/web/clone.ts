// `structuredClone`.
import { blobBytes, blobOf, File, isBlob } from "./blob.ts";
import { isArrayBuffer } from "./bytes.ts";
import { need, platformPrototypes } from "./define.ts";
import { isPort, type MessagePort, transferPort } from "./messaging.ts";

type Memory = Map<object, unknown>;

export function structuredClone(value: unknown, options: { transfer?: Iterable<unknown> } | undefined = undefined): unknown {
  need(1, arguments.length, "structuredClone");
  const transfer = options?.transfer === undefined ? [] : [...options.transfer];
  return cloneAndTransfer(value, transfer);
}

/** Clones a value whose objects in `transfer` are moved; the new ports are added to `ports`. */
export function cloneAndTransfer(value: unknown, transfer: readonly unknown[], ports: MessagePort[] = []): unknown {
  const memory: Memory = new Map();
  for (const item of transfer) {
    const isTransferable = isArrayBuffer(item) || isPort(item);
    if (!isTransferable || memory.has(item as object)) throw notCloneable(isTransferable ? "The transfer list has a duplicate." : "Found invalid object in transferList");
    if (isArrayBuffer(item) && item.detached) throw notCloneable("An ArrayBuffer is detached and could not be cloned.");
    memory.set(item as object, undefined);
  }
  // The result refers to the moved objects, which move only if cloning succeeds.
  const moved = new Map<ArrayBuffer, ArrayBuffer>();
  for (const item of transfer) {
    if (isPort(item)) {
      const port = transferPort(item);
      ports.push(port);
      memory.set(item, port);
    } else {
      const buffer = item as ArrayBuffer;
      const copy = buffer.slice(0);
      moved.set(buffer, copy);
      memory.set(buffer, copy);
    }
  }
  const result = clone(value, memory);
  for (const buffer of moved.keys()) buffer.transfer();
  return result;
}

function notCloneable(message: string): DOMException {
  return new DOMException(message, "DataCloneError");
}

function describe(value: unknown): string {
  try {
    return typeof value === "object" ? Object.prototype.toString.call(value).replace(/^\[object (.*)\]$/, "#<$1>") : String(value);
  } catch {
    return typeof value;
  }
}

function clone(value: unknown, memory: Memory): unknown {
  if (typeof value === "symbol" || typeof value === "function") throw notCloneable(`${describe(value)} could not be cloned.`);
  if (typeof value !== "object" || value === null) return value;
  const known = memory.get(value);
  if (known !== undefined) return known;
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== Array.prototype) {
    const made = shallow(value, memory);
    if (made !== undefined) return made;
  }
  const copy = Array.isArray(value) ? new Array(value.length) : {};
  memory.set(value, copy);
  properties(value, copy, memory);
  return copy;
}

function properties(from: object, to: object, memory: Memory): void {
  for (const key of Object.keys(from)) {
    // A getter may have deleted it.
    if (!Object.hasOwn(from, key)) continue;
    const value = clone((from as Record<string, unknown>)[key], memory);
    Object.defineProperty(to, key, { value, writable: true, enumerable: true, configurable: true });
  }
}

/** Whether a method that requires a kind of object accepts this one. */
function accepts(check: () => unknown): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

const regexpSource = Object.getOwnPropertyDescriptor(RegExp.prototype, "flags")!.get!;
const mapSize = Object.getOwnPropertyDescriptor(Map.prototype, "size")!.get!;
const setSize = Object.getOwnPropertyDescriptor(Set.prototype, "size")!.get!;
const ERRORS: Record<string, ErrorConstructor> = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError } as never;
const REFUSED = [WeakMap, WeakSet, WeakRef, Promise, FinalizationRegistry] as const;

/** A clone of an object that is more than its properties; nothing for any other. */
function shallow(value: object, memory: Memory): object | undefined {
  const keep = <T extends object>(copy: T): T => {
    memory.set(value, copy);
    return copy;
  };
  if (isArrayBuffer(value)) return keep(cloneBuffer(value));
  if (ArrayBuffer.isView(value)) return cloneView(value, memory, keep);
  const tag = Object.prototype.toString.call(value);
  if (tag === "[object Date]" && accepts(() => Date.prototype.getTime.call(value))) return keep(new Date(Date.prototype.getTime.call(value)));
  if (tag === "[object RegExp]" && accepts(() => regexpSource.call(value))) {
    const { source, flags } = value as RegExp;
    return keep(new RegExp(source, flags));
  }
  if (tag === "[object Map]" && accepts(() => mapSize.call(value))) return cloneMap(value as Map<unknown, unknown>, memory, keep);
  if (tag === "[object Set]" && accepts(() => setSize.call(value))) return cloneSet(value as Set<unknown>, memory, keep);
  if (value instanceof DOMException) return keep(new DOMException(value.message, value.name));
  if (tag === "[object Error]" || value instanceof Error) return cloneError(value as Error, memory, keep);
  if (tag === "[object Boolean]" && accepts(() => Boolean.prototype.valueOf.call(value))) return keep(Object(Boolean.prototype.valueOf.call(value)));
  if (tag === "[object Number]" && accepts(() => Number.prototype.valueOf.call(value))) return keep(Object(Number.prototype.valueOf.call(value)));
  if (tag === "[object String]" && accepts(() => String.prototype.valueOf.call(value))) return keep(Object(String.prototype.valueOf.call(value)));
  if (tag === "[object BigInt]" && accepts(() => BigInt.prototype.valueOf.call(value))) return keep(Object(BigInt.prototype.valueOf.call(value)));
  if (isBlob(value)) return keep(cloneBlob(value));
  // A key never changes.
  if (value instanceof globalThis.CryptoKey) return value;
  if (typeof SharedArrayBuffer !== "undefined" && value instanceof SharedArrayBuffer) return value;
  const isSymbol = tag === "[object Symbol]" && accepts(() => Symbol.prototype.valueOf.call(value));
  if (isSymbol || isPlatformObject(value) || REFUSED.some((type) => value instanceof type) || / (Async)?Generator\]$/.test(tag)) {
    throw notCloneable(`${describe(value)} could not be cloned.`);
  }
  return undefined;
}

function isPlatformObject(value: object): boolean {
  for (let type = Object.getPrototypeOf(value); type !== null; type = Object.getPrototypeOf(type)) if (platformPrototypes.has(type)) return true;
  return false;
}

function cloneBuffer(buffer: ArrayBuffer): ArrayBuffer {
  if (buffer.detached) throw notCloneable("An ArrayBuffer is detached and could not be cloned.");
  if (!buffer.resizable) return buffer.slice(0);
  const copy = new ArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength });
  new Uint8Array(copy).set(new Uint8Array(buffer));
  return copy;
}

type Keep = <T extends object>(copy: T) => T;

function cloneView(view: ArrayBufferView, memory: Memory, keep: Keep): object {
  if ((view.buffer as ArrayBuffer).detached) throw notCloneable("An ArrayBuffer is detached and could not be cloned.");
  const buffer = clone(view.buffer, memory) as ArrayBuffer;
  const name = view instanceof DataView ? "DataView" : (view as unknown as { [Symbol.toStringTag]: string })[Symbol.toStringTag];
  const type = (globalThis as unknown as Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => object>)[name]!;
  return keep(new type(buffer, view.byteOffset, view instanceof DataView ? view.byteLength : (view as Uint8Array).length));
}

function cloneMap(map: Map<unknown, unknown>, memory: Memory, keep: Keep): object {
  const copy = keep(new Map());
  for (const [key, item] of [...Map.prototype.entries.call(map)]) copy.set(clone(key, memory), clone(item, memory));
  return copy;
}

function cloneSet(set: Set<unknown>, memory: Memory, keep: Keep): object {
  const copy = keep(new Set());
  for (const item of [...Set.prototype.values.call(set)]) copy.add(clone(item, memory));
  return copy;
}

function cloneError(error: Error, memory: Memory, keep: Keep): object {
  const name = `${error.name}`;
  const made = keep(new (ERRORS[name] ?? Error)());
  const own = (key: string, value: unknown) => Object.defineProperty(made, key, { value, writable: true, enumerable: false, configurable: true });
  if (typeof error.stack === "string") own("stack", error.stack);
  const message = Object.getOwnPropertyDescriptor(error, "message");
  if (message && "value" in message) own("message", `${message.value as string}`);
  if (Object.hasOwn(error, "cause")) own("cause", clone(error.cause, memory));
  return made;
}

function cloneBlob(blob: Parameters<typeof blobBytes>[0]): object {
  const bytes = blobBytes(blob);
  if (blob instanceof File) return new File([bytes], blob.name, { type: blob.type, lastModified: blob.lastModified });
  return blobOf(bytes, blob.type);
}
