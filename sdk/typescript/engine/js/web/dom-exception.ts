// `DOMException`: the engine's own class with the options of Node, such as a cause.
import { defineGlobals } from "./define.ts";

const Native = globalThis.DOMException;

function DOMException(this: unknown, message: unknown = "", options: unknown = "Error"): unknown {
  if (!new.target) throw new TypeError("Class constructor DOMException cannot be invoked without 'new'");
  if (typeof options !== "object" || options === null) return Reflect.construct(Native, [message, options], new.target);
  const { name = "Error", cause } = options as { name?: string; cause?: unknown };
  const error = Reflect.construct(Native, [message, name], new.target);
  if ("cause" in options) Object.defineProperty(error, "cause", { value: cause, configurable: true, writable: true, enumerable: false });
  return error;
}
Object.defineProperties(DOMException, Object.getOwnPropertyDescriptors(Native));
Object.defineProperty(DOMException, "prototype", { value: Native.prototype, writable: false });
Object.defineProperty(DOMException, "length", { value: 0, configurable: true });
Object.defineProperty(Native.prototype, "constructor", { value: DOMException, writable: true, configurable: true });
defineGlobals({ DOMException });
