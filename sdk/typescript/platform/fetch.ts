// `Request`, `Response` and `Headers`, where the engine deviates from the standard or from Node.
import { patch, replaceGlobal } from "./patch.ts";

// Browsers forbid pages to set these headers, but a server's handler needs them as the client sent them.
const DROPPED = ["connection", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];

const NativeRequest = globalThis.Request;
const NativeResponse = globalThis.Response;

class PolicyRequest extends NativeRequest {
  /** The headers, if the engine's own object lacks some of them. */
  readonly #headers: Headers | undefined;

  constructor(input: RequestInfo | URL, init?: RequestInit) {
    const method = init?.method?.toUpperCase();
    if (method === "TRACE" || method === "TRACK" || method === "CONNECT") {
      throw new TypeError(`'${init?.method}' HTTP method is unsupported.`);
    }
    super(input, init);
    const { username, password } = new URL(super.url);
    if (username || password) throw new TypeError("Request cannot be constructed from a URL that includes credentials");

    const provided = init?.headers ?? (input instanceof NativeRequest ? input.headers : undefined);
    if (!provided) return;
    const source = provided instanceof Headers ? provided : new Headers(provided);
    const dropped = DROPPED.filter((name) => source.has(name));
    if (dropped.length === 0) return;
    this.#headers = new Headers(super.headers);
    for (const name of dropped) this.#headers.set(name, source.get(name) as string);
  }

  override get headers(): Headers {
    return this.#headers ?? super.headers;
  }

  override clone(): Request {
    return new PolicyRequest(super.clone(), { headers: this.headers });
  }
}

patch(PolicyRequest.prototype, {
  get mode() {
    return "cors";
  },
  get credentials() {
    return "same-origin";
  },
  get cache() {
    return "default";
  },
  get redirect() {
    return "follow";
  },
  get referrer() {
    return "about:client";
  },
  get referrerPolicy() {
    return "";
  },
  get destination() {
    return "";
  },
  get integrity() {
    return "";
  },
  get keepalive() {
    return false;
  },
  get duplex() {
    return "half";
  },
});

class PolicyResponse extends NativeResponse {
  constructor(body?: BodyInit | null, init?: ResponseInit) {
    if (init?.statusText && /[^\t\x20-\x7e\x80-\xff]/.test(init.statusText)) throw new TypeError("Invalid statusText");
    super(body, init);
  }
}

patch(NativeResponse, {
  // The engine's own method does not normalize the URL.
  redirect(url: string | URL, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`Invalid status code ${status}`);
    return new PolicyResponse(null, { status, headers: { location: new URL(url).href } });
  },
  error() {
    const response = new PolicyResponse();
    const property = (value: unknown) => ({ value, configurable: true });
    return Object.defineProperties(response, { status: property(0), type: property("error"), ok: property(false) });
  },
});

patch(NativeResponse.prototype, {
  clone(this: Response) {
    if (this.bodyUsed || this.body?.locked) throw new TypeError("Response.clone: Body has already been consumed.");
    const init = { status: this.status, statusText: this.statusText, headers: this.headers };
    if (this.body === null) return new PolicyResponse(null, init);
    const [ownBody, clonedBody] = this.body.tee();
    // The body of the engine's response cannot be replaced, so its readers are replaced.
    adopt(this, ownBody);
    return new PolicyResponse(clonedBody, init);
  },
});

/** Makes the methods of `response` read from `body`. */
function adopt(response: Response, body: ReadableStream): void {
  const from = new NativeResponse(body, { headers: response.headers });
  const reader = (name: "arrayBuffer" | "blob" | "formData" | "json" | "text") => ({ value: () => from[name](), configurable: true });
  Object.defineProperties(response, {
    arrayBuffer: reader("arrayBuffer"),
    blob: reader("blob"),
    formData: reader("formData"),
    json: reader("json"),
    text: reader("text"),
    body: { get: () => from.body, configurable: true },
    bodyUsed: { get: () => from.bodyUsed, configurable: true },
  });
}

async function bytes(this: Body): Promise<Uint8Array> {
  return new Uint8Array(await this.arrayBuffer());
}
patch(NativeRequest.prototype, { bytes });
patch(NativeResponse.prototype, { bytes });

// Objects that the engine creates, for example in `fetch`, are instances, too.
for (const [Policy, Native] of [
  [PolicyRequest, NativeRequest],
  [PolicyResponse, NativeResponse],
] as const) {
  Object.defineProperty(Policy, Symbol.hasInstance, {
    value(this: unknown, it: unknown) {
      return this === Policy ? it instanceof Native : Function.prototype[Symbol.hasInstance].call(this, it);
    },
  });
}
Object.defineProperty(PolicyRequest, "name", { value: "Request" });
Object.defineProperty(PolicyResponse, "name", { value: "Response" });
replaceGlobal("Request", PolicyRequest);
replaceGlobal("Response", PolicyResponse);
Object.defineProperty(Headers.prototype, Symbol.toStringTag, { value: "Headers", configurable: true });
