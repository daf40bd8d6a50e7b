// A plain reader of server-sent events over node:http. It parses like a browser, and reconnects only on request.
import http from "node:http";
import { StringDecoder } from "node:string_decoder";
import { until } from "./until.js";

export class SseReader {
  /** All frames received, over all connections: `{id, data, json}`; `json` is undefined where the data is not JSON. */
  frames = [];
  /** The last event id that was dispatched, as a browser keeps it. */
  lastEventId = "";
  /** The last `retry:` in ms. */
  retry = null;
  status = 0;
  headers = {};
  /** The body of an answer that is not a stream. */
  body = "";
  /** Whether the server ended the current connection. */
  ended = false;
  /** The error that broke the current connection, or null. */
  error = null;
  #request = null;

  constructor(url, { headers = {} } = {}) {
    this.url = url;
    this.requestHeaders = headers;
  }

  /** Connects; resolves with the reader after the response head (and, if it is not a stream, its body). */
  static async open(url, options) {
    const reader = new SseReader(url, options);
    await reader.connect();
    return reader;
  }

  async connect() {
    this.close();
    this.ended = false;
    this.error = null;
    this.status = 0;
    this.body = "";
    const headers = { accept: "text/event-stream", "cache-control": "no-cache", ...this.requestHeaders };
    if (this.lastEventId) headers["last-event-id"] = this.lastEventId;
    const request = http.get(this.url, { agent: false, headers });
    this.#request = request;
    const response = await new Promise((resolve, reject) => {
      request.once("response", resolve);
      request.once("error", reject);
    });
    // From here on a broken connection is a state, not an exception.
    request.on("error", () => {});
    this.status = response.statusCode;
    this.headers = response.headers;
    const streams = this.status === 200 && /^text\/event-stream\b/.test(response.headers["content-type"] ?? "");
    const decoder = new StringDecoder("utf8");
    const parser = new Parser(this);
    const ifCurrent = (action) => (value) => this.#request === request && action(value);
    response.on("data", ifCurrent((bytes) => {
      const text = decoder.write(bytes);
      if (streams) parser.push(text);
      else this.body += text;
    }));
    response.on("end", ifCurrent(() => (this.ended = true)));
    response.on("error", ifCurrent((error) => {
      this.error = error;
      this.ended = true;
    }));
    if (!streams) await until(`the body of ${this.url}`, () => this.ended);
    return this;
  }

  /** Reconnects as a browser does: the same URL, with `Last-Event-ID`. */
  async reconnect() {
    return this.connect();
  }

  close() {
    this.#request?.destroy();
    this.#request = null;
  }

  /** Frames that are user events, of one channel or of all. */
  users(channel) {
    const events = this.frames.map((frame) => frame.json).filter(isUserEvent);
    return channel === undefined ? events : events.filter((event) => event.channel === channel);
  }

  /** Frames of a type: `connected`, `ping`, `gap`… */
  system(type) {
    return this.frames.map((frame) => frame.json).filter((json) => json?.type === type && !isUserEvent(json));
  }

  /** Waits for a user event. */
  async event(name, { channel, within } = {}) {
    const description = () => `event ${name} on ${this.url}; received ${JSON.stringify(this.frames.slice(-8))}`;
    return until(description, () => this.users(channel).find((event) => event.event === name), { within });
  }

  /** Waits until each of `channels` is connected. */
  async connected(channels) {
    const description = () => `connected to ${channels} on ${this.url}; ${this.status} ${this.body} ${JSON.stringify(this.frames)}`;
    await until(description, () => channels.every((name) => this.system("connected").some((frame) => frame.channel === name)));
    return this;
  }
}

/** Whether the stock client would pass this to the app. */
export function isUserEvent(json) {
  return (
    typeof json === "object" && json !== null && typeof json.event === "string" && typeof json.channel === "string" &&
    /^\d+-\d+$/.test(json.id)
  );
}

/** A parser of the event-stream format, for input split at any byte. */
class Parser {
  #text = "";
  #data = [];
  #id = null;
  #start = true;

  constructor(reader) {
    this.reader = reader;
  }

  push(text) {
    this.#text += text;
    // A CR at the end may be the first half of a CRLF, so it stays until the next text arrives.
    const lines = this.#text.split(/\r\n|\n|\r(?!$)/);
    this.#text = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(raw) {
    const line = this.#start ? raw.replace(/^\uFEFF/, "") : raw;
    this.#start = false;
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.reader.retry = Number(value);
  }

  #dispatch() {
    if (this.#id !== null) this.reader.lastEventId = this.#id;
    if (this.#data.length > 0) {
      const data = this.#data.join("\n");
      this.reader.frames.push({ id: this.#id, data, json: parseJson(data) });
    }
    this.#data = [];
    this.#id = null;
  }
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
