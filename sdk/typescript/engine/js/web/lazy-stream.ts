// Streams of bytes that are there already. Most code only compares such a stream with `null`, or makes another response from it, so that the
// stream of the package web-streams-polyfill, which costs as much as a whole decision, is created when a property of it is used.
import { ReadableStream } from "web-streams-polyfill";

type Bytes = Uint8Array<ArrayBuffer>;
type Content = string | Bytes;

/** The content of a stream that was not created yet. */
const CONTENT = Symbol("content");
/** In place of a content that was read whole, without the stream. */
const READ = Symbol("read");

// The properties of the package's objects, by which it recognizes them.
const CONTROLLER = "_readableStreamController";
const OTHERS = ["_state", "_reader", "_storedError", "_disturbed"];

interface Lazy {
  [CONTENT]?: Content | typeof READ;
}

function accessor(name: string): PropertyDescriptor {
  return {
    get() {
      return (create(this as Lazy) as Record<string, unknown>)[name];
    },
    set(value: unknown) {
      (create(this as Lazy) as Record<string, unknown>)[name] = value;
    },
    configurable: true,
  };
}

const prototype = Object.create(ReadableStream.prototype, Object.fromEntries(OTHERS.map((name) => [name, accessor(name)])));
const ownController = accessor(CONTROLLER);

/** A stream of these bytes, or of the UTF-8 of a text. */
export function lazyStream(content: Content): ReadableStream<Bytes> {
  const stream = Object.create(prototype);
  stream[CONTENT] = content;
  return Object.defineProperty(stream, CONTROLLER, ownController);
}

/** The content of a stream that nothing was read from, which counts as read then. */
export function takeContent(stream: object): Content | undefined {
  const content = (stream as Lazy)[CONTENT];
  if (content === undefined || content === READ) return undefined;
  (stream as Lazy)[CONTENT] = READ;
  return content;
}

/** Whether a stream was read from or canceled. */
export function isDisturbed(stream: ReadableStream): boolean {
  const content = (stream as unknown as Lazy)[CONTENT];
  return content === undefined ? (stream as unknown as { _disturbed: boolean })._disturbed : content === READ;
}

/** Whether a stream has a reader. */
export function isLocked(stream: ReadableStream): boolean {
  const content = (stream as unknown as Lazy)[CONTENT];
  return content === undefined ? stream.locked : content === READ;
}

/** A stream that gives all bytes at once. */
function streamOf(bytes: Bytes): ReadableStream<Bytes> {
  return new ReadableStream({
    type: "bytes",
    pull(controller) {
      if (bytes.byteLength > 0) controller.enqueue(bytes);
      controller.close();
      controller.byobRequest?.respond(0);
    },
  });
}

/** Gives an object the properties of a stream of its content. */
function create(stream: Lazy): object {
  const content = stream[CONTENT];
  if (content === undefined) return stream;
  delete stream[CONTENT];
  Object.setPrototypeOf(stream, ReadableStream.prototype);
  // The package's streams own bytes that they pass on.
  const bytes = content === READ ? new Uint8Array(0) : typeof content === "string" ? native.utf8Encode(content) : content.slice();
  const real = streamOf(bytes) as unknown as Record<string, object>;
  for (const name of [CONTROLLER, ...OTHERS]) Object.defineProperty(stream, name, { value: real[name], writable: true, enumerable: true, configurable: true });
  (real[CONTROLLER] as Record<string, object>)._controlledReadableByteStream = stream;
  if (content === READ) {
    const whole = stream as ReadableStream<Bytes>;
    // Read to its end, by a reader that keeps it.
    void whole.getReader().read();
  }
  return stream;
}
