// The web platform, installed into the global scope.
import "./dom-exception.ts";
import * as abort from "./abort.ts";
import { Blob, File } from "./blob.ts";
import { Buffer } from "./buffer.ts";
import { structuredClone } from "./clone.ts";
import { defineGlobals } from "./define.ts";
import { TextDecoder, TextEncoder } from "./encoding.ts";
import * as events from "./event.ts";
import { fetch } from "./fetch.ts";
import { FormData } from "./form-data.ts";
import { Headers } from "./headers.ts";
import { BroadcastChannel, MessageChannel, MessagePort } from "./messaging.ts";
import { Performance, performance, PerformanceEntry } from "./performance.ts";
import { Request } from "./request.ts";
import { Response } from "./response.ts";
import { URLSearchParams } from "./search-params.ts";
import { EventSource, WebSocket } from "./sockets.ts";
import * as streams from "./streams.ts";
import { URL } from "./url.ts";

const { isStream, readAll, ...streamClasses } = streams;
const { addEventListener, removeEventListener, dispatchEvent } = events.EventTarget.prototype;

class Navigator {
  get userAgent(): string {
    return "Tidegate";
  }
  get language(): string {
    return "en-US";
  }
  get languages(): readonly string[] {
    return ["en-US"];
  }
  get hardwareConcurrency(): number {
    return 1;
  }
}

defineGlobals({
  ...streamClasses,
  AbortController: abort.AbortController,
  AbortSignal: abort.AbortSignal,
  Blob,
  BroadcastChannel,
  Buffer,
  CloseEvent: events.CloseEvent,
  CustomEvent: events.CustomEvent,
  ErrorEvent: events.ErrorEvent,
  Event: events.Event,
  EventSource,
  EventTarget: events.EventTarget,
  File,
  FormData,
  Headers,
  MessageChannel,
  MessageEvent: events.MessageEvent,
  MessagePort,
  Navigator,
  Performance,
  PerformanceEntry,
  Request,
  Response,
  TextDecoder,
  TextEncoder,
  URL,
  URLSearchParams,
  WebSocket,
  addEventListener,
  dispatchEvent,
  fetch,
  global: globalThis,
  navigator: new Navigator(),
  performance,
  removeEventListener,
  self: globalThis,
  structuredClone,
});
