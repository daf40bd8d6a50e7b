// `node:assert`.
declare const module: { exports: unknown };
declare function require(name: string): { isDeepStrictEqual(left: unknown, right: unknown): boolean };

const { isDeepStrictEqual } = require("./util.ts");

class AssertionError extends Error {
  readonly code = "ERR_ASSERTION";

  constructor({ message }: { message?: string } = {}) {
    super(message ?? "Failed");
    this.name = "AssertionError";
  }
}

type Message = string | Error | undefined;

function check(condition: unknown, message: Message, otherwise: string): void {
  if (condition) return;
  throw message instanceof Error ? message : new AssertionError({ message: message ?? otherwise });
}

function ok(value: unknown, message?: Message): void {
  check(value, message, "The expression evaluated to a falsy value");
}

const assert = Object.assign(ok, {
  AssertionError,
  deepEqual: (left: unknown, right: unknown, message?: Message) => check(isDeepStrictEqual(left, right), message, "Expected values to be deeply equal"),
  deepStrictEqual: (left: unknown, right: unknown, message?: Message) => check(isDeepStrictEqual(left, right), message, "Expected values to be deeply equal"),
  // biome-ignore lint: the loose comparison is the function's purpose.
  equal: (left: unknown, right: unknown, message?: Message) => check(left == right, message, "Expected values to be equal"),
  fail: (message?: Message) => check(false, message, "Failed"),
  notEqual: (left: unknown, right: unknown, message?: Message) => check(left != right, message, "Expected values not to be equal"),
  notStrictEqual: (left: unknown, right: unknown, message?: Message) => check(!Object.is(left, right), message, "Expected values not to be equal"),
  ok,
  strictEqual: (left: unknown, right: unknown, message?: Message) => check(Object.is(left, right), message, "Expected values to be strictly equal"),
  throws(call: () => unknown, ...rest: unknown[]) {
    let threw = false;
    try {
      call();
    } catch {
      threw = true;
    }
    check(threw, rest.at(-1) as Message, "Missing expected exception");
  },
});

module.exports = Object.assign(assert, { strict: assert });
