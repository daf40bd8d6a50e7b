// `Event`, `CustomEvent`, `MessageEvent`, `ErrorEvent` and `EventTarget`, for targets without a tree.
import { defineInterface, dictionary, need } from "./define.ts";

const NONE = 0;
const AT_TARGET = 2;

/** An event of the platform itself, not of a script. */
export let trustedEvent: (type: string) => Event;
/** Sets the target of an event while it is dispatched. */
let isTrusted: PropertyDescriptor;
let dispatchTo: (event: Event, target: EventTarget) => boolean;

class Event {
  static readonly NONE = NONE;
  static readonly CAPTURING_PHASE = 1;
  static readonly AT_TARGET = AT_TARGET;
  static readonly BUBBLING_PHASE = 3;

  #type: string;
  #bubbles: boolean;
  #cancelable: boolean;
  #composed: boolean;
  #target: EventTarget | null = null;
  #current: EventTarget | null = null;
  #canceled = false;
  #stopped = false;
  #stoppedNow = false;
  #passive = false;
  #dispatching = false;
  #initialized = true;
  #time: number | undefined = undefined;
  #trusted = false;

  constructor(type: string, init: EventInit | null | undefined = undefined) {
    need(1, arguments.length, "Event constructor");
    this.#type = `${type}`;
    const { bubbles = false, cancelable = false, composed = false } = dictionary(init, "eventInitDict");
    this.#bubbles = !!bubbles;
    this.#cancelable = !!cancelable;
    this.#composed = !!composed;
    // The standard wants an own property that cannot be deleted.
    Object.defineProperty(this, "isTrusted", isTrusted);
  }

  static {
    const get = Object.getOwnPropertyDescriptor(
      {
        get isTrusted() {
          return (this as unknown as Event).#trusted;
        },
      },
      "isTrusted",
    )!.get!;
    isTrusted = { get, enumerable: true, configurable: false };
    trustedEvent = (type) => {
      const event = new Event(type);
      event.#trusted = true;
      return event;
    };
    dispatchTo = (event, target) => {
      if (event.#dispatching || !event.#initialized) throw new DOMException("The event is already being dispatched.", "InvalidStateError");
      event.#dispatching = true;
      event.#target = event.#current = target;
      try {
        for (const listener of [...listenersOf(target)]) {
          if (listener.removed || listener.type !== event.#type) continue;
          if (listener.once) removeListener(target, listener);
          event.#passive = listener.passive;
          call(listener.callback, target, event);
          event.#passive = false;
          if (event.#stoppedNow) break;
        }
      } finally {
        event.#dispatching = event.#stopped = event.#stoppedNow = false;
        event.#current = null;
      }
      return !event.#canceled;
    };
  }

  get type(): string {
    return this.#type;
  }
  get target(): EventTarget | null {
    return this.#target;
  }
  get srcElement(): EventTarget | null {
    return this.#target;
  }
  get currentTarget(): EventTarget | null {
    return this.#current;
  }
  get eventPhase(): number {
    return this.#dispatching ? AT_TARGET : NONE;
  }
  get bubbles(): boolean {
    return this.#bubbles;
  }
  get cancelable(): boolean {
    return this.#cancelable;
  }
  get composed(): boolean {
    return this.#composed;
  }
  get defaultPrevented(): boolean {
    return this.#canceled;
  }
  get timeStamp(): number {
    return (this.#time ??= performance.now());
  }
  get returnValue(): boolean {
    return !this.#canceled;
  }
  set returnValue(value: boolean) {
    if (!value) this.preventDefault();
  }
  get cancelBubble(): boolean {
    return this.#stopped;
  }
  set cancelBubble(value: boolean) {
    if (value) this.#stopped = true;
  }

  composedPath(): EventTarget[] {
    return this.#current ? [this.#current] : [];
  }
  preventDefault(): void {
    if (this.#cancelable && !this.#passive) this.#canceled = true;
  }
  stopPropagation(): void {
    this.#stopped = true;
  }
  stopImmediatePropagation(): void {
    this.#stopped = this.#stoppedNow = true;
  }
  initEvent(type: string, bubbles = false, cancelable = false): void {
    need(1, arguments.length, "Event.initEvent");
    if (this.#dispatching) return;
    this.#type = `${type}`;
    this.#bubbles = !!bubbles;
    this.#cancelable = !!cancelable;
    this.#canceled = this.#stopped = this.#stoppedNow = false;
    this.#target = null;
  }
}
for (const [name, value] of Object.entries({ NONE, CAPTURING_PHASE: 1, AT_TARGET, BUBBLING_PHASE: 3 })) {
  for (const target of [Event, Event.prototype]) Object.defineProperty(target, name, { value, enumerable: true, writable: false, configurable: false });
}
defineInterface(Event, "Event");

class CustomEvent extends Event {
  #detail: unknown;
  constructor(type: string, init: CustomEventInit | null | undefined = undefined) {
    need(1, arguments.length, "CustomEvent constructor");
    super(type, init);
    this.#detail = init?.detail === undefined ? null : init.detail;
  }
  get detail(): unknown {
    return this.#detail;
  }
}
defineInterface(CustomEvent, "CustomEvent");

class MessageEvent extends Event {
  #init: MessageEventInit;
  constructor(type: string, init: MessageEventInit | null | undefined = undefined) {
    need(1, arguments.length, "MessageEvent constructor");
    super(type, init);
    this.#init = init ?? {};
  }
  get data(): unknown {
    return this.#init.data === undefined ? null : this.#init.data;
  }
  get origin(): string {
    return this.#init.origin ?? "";
  }
  get lastEventId(): string {
    return this.#init.lastEventId ?? "";
  }
  get source(): unknown {
    return this.#init.source ?? null;
  }
  get ports(): readonly unknown[] {
    return this.#init.ports ?? [];
  }
}
defineInterface(MessageEvent, "MessageEvent");

class ErrorEvent extends Event {
  #init: ErrorEventInit;
  constructor(type: string, init: ErrorEventInit | null | undefined = undefined) {
    need(1, arguments.length, "ErrorEvent constructor");
    super(type, init);
    this.#init = init ?? {};
  }
  get message(): string {
    return this.#init.message ?? "";
  }
  get filename(): string {
    return this.#init.filename ?? "";
  }
  get lineno(): number {
    return this.#init.lineno ?? 0;
  }
  get colno(): number {
    return this.#init.colno ?? 0;
  }
  get error(): unknown {
    return this.#init.error;
  }
}
defineInterface(ErrorEvent, "ErrorEvent");

class CloseEvent extends Event {
  #init: CloseEventInit;
  constructor(type: string, init: CloseEventInit | null | undefined = undefined) {
    need(1, arguments.length, "CloseEvent constructor");
    super(type, init);
    this.#init = init ?? {};
  }
  get wasClean(): boolean {
    return this.#init.wasClean ?? false;
  }
  get code(): number {
    return this.#init.code ?? 0;
  }
  get reason(): string {
    return this.#init.reason ?? "";
  }
}
defineInterface(CloseEvent, "CloseEvent");

interface Listener {
  type: string;
  callback: EventListenerOrEventListenerObject;
  capture: boolean;
  once: boolean;
  passive: boolean;
  removed: boolean;
}

let listenersOf: (target: EventTarget) => Listener[];
let removeListener: (target: EventTarget, listener: Listener) => void;

const NO_LISTENERS: Listener[] = [];

class EventTarget {
  #listeners: Listener[] | undefined = undefined;

  static {
    listenersOf = (target) => target.#listeners ?? NO_LISTENERS;
    removeListener = (target, listener) => {
      listener.removed = true;
      target.#listeners = target.#listeners?.filter((it) => it !== listener);
    };
  }

  addEventListener(
    type: string,
    callback: EventListenerOrEventListenerObject | null,
    options: boolean | AddEventListenerOptions | null | undefined = undefined,
  ): void {
    const target = selfOf(this);
    need(2, arguments.length, "EventTarget.addEventListener");
    const name = `${type}`;
    const settings = typeof options === "object" && options !== null ? options : { capture: !!options };
    const [capture, once, passive, signal] = [!!settings.capture, !!settings.once, !!settings.passive, settings.signal];
    if (signal !== undefined && !(signal instanceof globalThis.AbortSignal)) throw new TypeError("The signal of the options is not an AbortSignal.");
    if (callback === null || callback === undefined) return;
    if (typeof callback !== "function" && typeof callback !== "object") throw new TypeError("The listener is not an object.");
    if (signal?.aborted) return;
    const all = (target.#listeners ??= []);
    if (all.some((it) => it.type === name && it.callback === callback && it.capture === capture)) return;
    const listener: Listener = { type: name, callback, capture, once, passive, removed: false };
    all.push(listener);
    signal?.addEventListener("abort", () => removeListener(target, listener), { once: true });
  }

  removeEventListener(
    type: string,
    callback: EventListenerOrEventListenerObject | null,
    options: boolean | EventListenerOptions | null | undefined = undefined,
  ): void {
    const target = selfOf(this);
    need(2, arguments.length, "EventTarget.removeEventListener");
    const name = `${type}`;
    const capture = typeof options === "object" && options !== null ? !!options.capture : !!options;
    const found = target.#listeners?.find((it) => it.type === name && it.callback === callback && it.capture === capture);
    if (found) removeListener(target, found);
  }

  dispatchEvent(event: Event): boolean {
    const target = selfOf(this);
    need(1, arguments.length, "EventTarget.dispatchEvent");
    if (!(event instanceof Event)) throw new TypeError('The "event" argument must be an instance of Event.');
    return dispatchTo(event, target);
  }
}
defineInterface(EventTarget, "EventTarget");

const globalTarget = new EventTarget();

/** The target of a method: without one it is the global scope. */
function selfOf(target: EventTarget | undefined): EventTarget {
  return target === undefined || (target as unknown) === globalThis ? globalTarget : target;
}

/** Calls a listener. What it throws is reported, and does not stop the others. */
function call(callback: EventListenerOrEventListenerObject, target: EventTarget, event: Event): void {
  try {
    if (typeof callback === "function") callback.call(target as never, event as never);
    else {
      const { handleEvent } = callback;
      if (typeof handleEvent !== "function") throw new TypeError("The handleEvent of a listener is not a function.");
      handleEvent.call(callback, event as never);
    }
  } catch (error) {
    reportError(error);
  }
}

/** Defines `on…` attributes of an interface. */
export function eventHandlers(type: Function, names: readonly string[]): void {
  const handlers = new WeakMap<object, Map<string, { value: unknown; listener: EventListener }>>();
  for (const name of names) {
    Object.defineProperty(type.prototype, `on${name}`, {
      configurable: true,
      enumerable: true,
      get(this: EventTarget) {
        return handlers.get(this)?.get(name)?.value ?? null;
      },
      set(this: EventTarget, value: unknown) {
        let own = handlers.get(this);
        if (!own) handlers.set(this, (own = new Map()));
        const handler = own.get(name);
        const callable = typeof value === "function" || (typeof value === "object" && value !== null) ? value : null;
        if (handler) handler.value = callable;
        if (callable === null) {
          if (handler) this.removeEventListener(name, handler.listener);
          own.delete(name);
        } else if (!handler) {
          const made = {
            value: callable as unknown,
            listener: (event: unknown) => {
              if (typeof made.value === "function") made.value.call(this, event);
            },
          };
          own.set(name, made as never);
          this.addEventListener(name, made.listener as never);
        }
      },
    });
  }
}

export { CloseEvent, CustomEvent, ErrorEvent, Event, EventTarget, MessageEvent };
