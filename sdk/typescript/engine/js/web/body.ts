// Bodies of requests and responses. A body that is a string, or bytes, becomes a stream only if someone asks for one.
import { Blob, blobBytes, blobOf, isBlob } from "./blob.ts";
import { bytesOf, isBinary, joined } from "./bytes.ts";
import { usv } from "./define.ts";
import { utf8Text } from "./encoding.ts";
import { type FormData, isForm, multipart, parseForm } from "./form-data.ts";
import { isDisturbed, isLocked, lazyStream, takeContent } from "./lazy-stream.ts";
import { isSearchParams } from "./search-params.ts";
import { type AnyStream, isStream, ReadableStream, readAll } from "./streams.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** A body that arrives. */
export interface Incoming {
  /** The next chunk, or `null` after the last. */
  read(): Promise<Bytes | null>;
  cancel(): void;
}

type Source = string | Bytes | Incoming;

/** A body: its source, and its stream once it was asked for. Without a source it is a stream. */
export class Body {
  declare source: Source | undefined;
  declare stream: AnyStream | undefined;
  /** Whether the source was read. */
  declare used: boolean;

  constructor(source: Source | undefined, stream: AnyStream | undefined) {
    this.source = source;
    this.stream = stream;
    this.used = false;
  }
}

/** The content type that the last extracted body implies. */
export let impliedType: string | null = null;

/** A body of what a caller passed. */
export function extract(value: unknown): Body {
  impliedType = null;
  if (typeof value === "string") {
    impliedType = "text/plain;charset=UTF-8";
    return new Body(usv(value), undefined);
  }
  if (typeof value === "object" && value !== null) {
    if (isStream(value)) {
      if (isDisturbed(value) || isLocked(value)) throw new TypeError("Response body object should not be disturbed or locked");
      return new Body(undefined, value);
    }
    if (isBinary(value)) return new Body(bytesOf(value).slice(), undefined);
    if (isBlob(value)) {
      impliedType = value.type === "" ? null : value.type;
      return new Body(blobBytes(value), undefined);
    }
    if (isSearchParams(value)) {
      impliedType = "application/x-www-form-urlencoded;charset=UTF-8";
      return new Body(value.toString(), undefined);
    }
    if (isForm(value)) {
      const [bytes, type] = multipart(value);
      impliedType = type;
      return new Body(bytes, undefined);
    }
    // As in Node, the chunks of any other iterable of bytes.
    if (typeof (value as AsyncIterable<unknown>)[Symbol.asyncIterator] === "function") return new Body(undefined, streamOf(value as AsyncIterable<unknown>));
  }
  impliedType = "text/plain;charset=UTF-8";
  return new Body(usv(value), undefined);
}

function streamOf(chunks: AsyncIterable<unknown>): AnyStream {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller: any) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(typeof value === "string" ? native.utf8Encode(usv(value)) : value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

function encoded(source: string | Bytes): Bytes {
  return typeof source === "string" ? native.utf8Encode(source) : source;
}

/** The stream of a body, which from then on has the content. */
export function streamOfBody(body: Body): AnyStream {
  if (!body.stream) {
    const source = body.source as Source;
    body.stream = isIncoming(source) ? streamOfIncoming(source) : lazyStream(source);
    body.source = undefined;
    // The stream of a body that was read was read.
    if (body.used && takeContent(body.stream) === undefined) void body.stream.getReader();
  }
  return body.stream;
}

function isIncoming(source: Source): source is Incoming {
  return typeof source === "object" && "read" in source;
}

function streamOfIncoming(source: Incoming): AnyStream {
  return new ReadableStream({
    type: "bytes",
    async pull(controller: any) {
      const chunk = await source.read();
      if (chunk) return controller.enqueue(chunk);
      controller.close();
      controller.byobRequest?.respond(0);
    },
    cancel: () => source.cancel(),
  } as any);
}

async function collect(source: Incoming): Promise<Bytes> {
  const chunks: Bytes[] = [];
  for (;;) {
    const chunk = await source.read();
    if (!chunk) return joined(chunks);
    chunks.push(chunk);
  }
}

/** Whether a body was read. */
export function isUsed(body: Body): boolean {
  return body.used || (body.stream !== undefined && isDisturbed(body.stream));
}

/** Whether a body can no longer be read. */
export function isUnusable(body: Body): boolean {
  return isUsed(body) || (body.stream !== undefined && isLocked(body.stream));
}

/** A second body with the same content. */
export function cloneBody(body: Body): Body {
  const content = body.stream ? takeContent(body.stream) : body.source;
  if (content !== undefined && !isIncoming(content)) {
    // A stream that was there is used up, as if it had been split in two.
    body.source = content;
    body.stream = undefined;
    return new Body(content, undefined);
  }
  const [own, other] = streamOfBody(body).tee();
  body.stream = own;
  return new Body(undefined, other);
}

/** Reads a body whole: the source as it is, or the bytes of the stream. */
export function readBody(body: Body): string | Bytes | Promise<Bytes> {
  body.used = true;
  const { source, stream } = body;
  if (stream) return takeContent(stream) ?? readAll(stream).then(joined);
  return isIncoming(source as Source) ? collect(source as Incoming) : (source as string | Bytes);
}

/** The methods that `Request` and `Response` have in common: `bodyOf` finds the body, and checks the receiver. */
export function defineBodyMethods(type: Function, bodyOf: (self: any) => Body | null, contentTypeOf: (self: any) => string | null): void {
  const reader = <T>(finish: (content: string | Bytes, self: unknown) => T) =>
    function (this: unknown): Promise<T> {
      try {
        const body = bodyOf(this);
        if (body === null) return Promise.resolve(finish("", this));
        if (isUnusable(body)) return Promise.reject(new TypeError("Body is unusable: Body has already been read"));
        const content = readBody(body);
        if (content instanceof Promise) return content.then((bytes) => finish(bytes, this));
        return Promise.resolve(finish(content, this));
      } catch (error) {
        return Promise.reject(error);
      }
    };
  const members = {
    get body(): AnyStream | null {
      const body = bodyOf(this);
      return body === null ? null : streamOfBody(body);
    },
    get bodyUsed(): boolean {
      const body = bodyOf(this);
      return body !== null && isUsed(body);
    },
    arrayBuffer: reader((content) => own(content).buffer),
    blob: reader((content, self) => blobOf(encoded(content), blobType(contentTypeOf(self))) as Blob),
    bytes: reader(own),
    formData: reader((content, self): FormData => parseForm(encoded(content), contentTypeOf(self))),
    json: reader((content) => JSON.parse(textOf(content)) as unknown),
    text: reader(textOf),
  };
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(members))) {
    const { value } = property;
    if (typeof value === "function") Object.defineProperty(value, "name", { value: name, configurable: true });
    Object.defineProperty(type.prototype, name, property);
  }
}

/** The serialization of a content type. */
function blobType(contentType: string | null): string {
  const [type = "", ...parameters] = (contentType ?? "").split(";");
  return [type, ...parameters].map((it) => it.trim()).filter((it) => it !== "").join(";").toLowerCase();
}

function textOf(content: string | Bytes): string {
  if (typeof content !== "string") return utf8Text(content);
  return content.charCodeAt(0) === 0xfeff ? content.slice(1) : content;
}

/** Bytes that the caller may change. */
function own(content: string | Bytes): Bytes {
  if (typeof content === "string") return native.utf8Encode(content);
  return content.slice();
}
