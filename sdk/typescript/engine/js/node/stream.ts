// `node:stream`: classes that packages extend. A policy has nothing to stream from or to, so reading and writing throw.
declare const module: { exports: unknown };
declare function require(name: string): (this: object) => void;

const EventEmitter = require("./events.ts");

function unavailable(): never {
  throw new Error("node:stream: a policy has no streams of Node; use ReadableStream");
}

/** Functions rather than classes, because old packages call them on their own objects. */
function classOf(name: string, base: (this: object) => void): (this: object) => void {
  const made = { [name]: function (this: object) {
    base.call(this);
  } }[name] as (this: object) => void;
  Object.setPrototypeOf(made.prototype, base.prototype);
  return Object.setPrototypeOf(made, base) as (this: object) => void;
}

const Stream = classOf("Stream", EventEmitter);
Object.assign(Stream.prototype, { pipe: unavailable });
const Readable = classOf("Readable", Stream);
Object.assign(Readable.prototype, { read: unavailable, push: unavailable, resume: unavailable, pause: unavailable, [Symbol.asyncIterator]: unavailable });
const Writable = classOf("Writable", Stream);
Object.assign(Writable.prototype, { write: unavailable, end: unavailable });
const Duplex = classOf("Duplex", Readable);
Object.assign(Duplex.prototype, { write: unavailable, end: unavailable });
const Transform = classOf("Transform", Duplex);
const PassThrough = classOf("PassThrough", Transform);

module.exports = Object.assign(Stream, { Duplex, PassThrough, Readable, Stream, Transform, Writable, finished: unavailable, pipeline: unavailable });
