// `WebSocket` and `EventSource`: packages look for them when they are loaded, but nothing in a decision opens one.
import { defineInterface } from "./define.ts";
import { eventHandlers, EventTarget } from "./event.ts";

function refuse(name: string): never {
  throw new DOMException(`a policy cannot open a ${name}: it ends with its decision; use fetch`, "NotSupportedError");
}

class WebSocket extends EventTarget {
  constructor(_url: string, _protocols?: string | string[]) {
    super();
    refuse("WebSocket");
  }
}
class EventSource extends EventTarget {
  constructor(_url: string, _init?: EventSourceInit) {
    super();
    refuse("EventSource");
  }
}

const STATES = { WebSocket: ["CONNECTING", "OPEN", "CLOSING", "CLOSED"], EventSource: ["CONNECTING", "OPEN", "CLOSED"] };
for (const [type, name] of [[WebSocket, "WebSocket"], [EventSource, "EventSource"]] as const) {
  STATES[name].forEach((state, value) => {
    for (const target of [type, type.prototype]) Object.defineProperty(target, state, { value, enumerable: true });
  });
  defineInterface(type, name);
}
eventHandlers(WebSocket, ["open", "error", "close", "message"]);
eventHandlers(EventSource, ["open", "error", "message"]);

export { EventSource, WebSocket };
