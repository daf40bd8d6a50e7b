// `node:timers/promises`.
declare const module: { exports: unknown };

module.exports = {
  setImmediate: <Value>(value: Value) => new Promise<Value>((resolve) => setImmediate(() => resolve(value))),
  setTimeout: <Value>(delay: number, value: Value) => new Promise<Value>((resolve) => setTimeout(() => resolve(value), delay)),
};
