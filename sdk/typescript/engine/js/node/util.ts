// `node:util` as far as packages of middlewares use it. CommonJS, because packages require it.
declare const module: { exports: unknown };

type Call = (...args: never[]) => unknown;
type Callback = (error: unknown, value?: unknown) => void;

function inherits(derived: { super_?: unknown; prototype: object }, base: { prototype: object }): void {
  derived.super_ = base;
  Object.setPrototypeOf(derived.prototype, base.prototype);
}

const custom = Symbol.for("nodejs.util.promisify.custom");

function promisify(call: Call & { [custom]?: Call }): Call {
  const own = call[custom];
  if (own) return own;
  return function (this: unknown, ...args: unknown[]) {
    return new Promise((resolve, reject) => {
      const settle: Callback = (error, value) => (error ? reject(error) : resolve(value));
      Reflect.apply(call, this, [...args, settle]);
    });
  } as Call;
}
promisify.custom = custom;

function callbackify(call: (...args: unknown[]) => Promise<unknown>): Call {
  return function (this: unknown, ...args: unknown[]) {
    const callback = args.pop() as Callback;
    call.apply(this, args).then(
      (value) => callback(null, value),
      (error) => callback(error),
    );
  } as Call;
}

/** Deprecations are for the authors of packages, so they are not logged. */
const deprecate = (call: Call): Call => call;

const debuglog = () => Object.assign(() => {}, { enabled: false });

function inspect(value: unknown): string {
  if (typeof value === "string") return `'${value}'`;
  if (typeof value === "function") return `[Function: ${value.name}]`;
  if (value instanceof Error) return String(value.stack ?? value);
  const seen = new Set<unknown>();
  try {
    const text = JSON.stringify(value, (_, part: unknown) => {
      if (typeof part === "bigint") return `${part}n`;
      if (typeof part !== "object" || part === null) return part;
      if (seen.has(part)) return "[Circular]";
      seen.add(part);
      if (part instanceof Map) return { Map: [...part] };
      return part instanceof Set ? { Set: [...part] } : part;
    });
    return text ?? String(value);
  } catch {
    return String(value);
  }
}
inspect.custom = Symbol.for("nodejs.util.inspect.custom");

function format(...args: unknown[]): string {
  const rest = [...args];
  const show = (value: unknown) => (typeof value === "string" ? value : inspect(value));
  let line = "";
  if (typeof rest[0] === "string") {
    line = (rest.shift() as string).replace(/%([sdifjoOc%])/g, (all, kind: string) => {
      if (kind === "%") return "%";
      if (rest.length === 0) return all;
      const value = rest.shift();
      if (kind === "c") return "";
      if (kind === "d") return String(Number(value));
      if (kind === "i") return String(Number.parseInt(String(value), 10));
      if (kind === "f") return String(Number.parseFloat(String(value)));
      return kind === "j" ? JSON.stringify(value) : show(value);
    });
  }
  return [...(typeof args[0] === "string" ? [line] : []), ...rest.map(show)].join(" ");
}

const tagOf = (value: unknown) => Object.prototype.toString.call(value).slice(8, -1);

function isDeepStrictEqual(left: unknown, right: unknown): boolean {
  if (Object.is(left, right)) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if (Object.getPrototypeOf(left) !== Object.getPrototypeOf(right) || tagOf(left) !== tagOf(right)) return false;
  if (left instanceof Date && right instanceof Date) return left.getTime() === right.getTime();
  if (left instanceof RegExp && right instanceof RegExp) return String(left) === String(right);
  if (left instanceof Map && right instanceof Map) return isDeepStrictEqual([...left], [...right]);
  if (left instanceof Set && right instanceof Set) return isDeepStrictEqual([...left], [...right]);
  const keys = Reflect.ownKeys(left);
  if (keys.length !== Reflect.ownKeys(right).length) return false;
  return keys.every((key) => Object.hasOwn(right, key) && isDeepStrictEqual(Reflect.get(left, key), Reflect.get(right, key)));
}

const is = (tag: string) => (value: unknown) => tagOf(value) === tag;
const types = {
  isAnyArrayBuffer: (value: unknown) => is("ArrayBuffer")(value) || is("SharedArrayBuffer")(value),
  isArrayBuffer: is("ArrayBuffer"),
  isArrayBufferView: ArrayBuffer.isView,
  isAsyncFunction: is("AsyncFunction"),
  isCryptoKey: (value: unknown) => value instanceof CryptoKey,
  isDate: is("Date"),
  isGeneratorFunction: is("GeneratorFunction"),
  // A KeyObject of node:crypto.
  isKeyObject: (value: unknown) => is("KeyObject")(value),
  isMap: is("Map"),
  isNativeError: (value: unknown) => value instanceof Error,
  isPromise: is("Promise"),
  isProxy: () => false,
  isRegExp: is("RegExp"),
  isSet: is("Set"),
  isTypedArray: (value: unknown) => ArrayBuffer.isView(value) && !(value instanceof DataView),
  isUint8Array: (value: unknown) => value instanceof Uint8Array,
};

module.exports = {
  TextDecoder,
  TextEncoder,
  callbackify,
  debug: debuglog,
  debuglog,
  deprecate,
  format,
  inherits,
  inspect,
  isArray: Array.isArray,
  isDeepStrictEqual,
  promisify,
  stripVTControlCharacters: (text: string) => text.replace(/\u001b\[[\d;?]*[ -/]*[@-~]/g, ""),
  toUSVString: (text: string) => text.toWellFormed(),
  types,
};
