// What testharness.js and the tests expect of their environment. `FILES` has the resources that they fetch, by their address.
globalThis.GLOBAL = { isWindow: () => false, isWorker: () => false, isShadowRealm: () => false };
// The variant of the tests that have some: that without pages.
globalThis.location = { search: "?TextDecoder", href: "http://web-platform.test/", origin: "http://web-platform.test" };
globalThis.fetch = async (address) => ({ json: async () => JSON.parse(FILES[address]) });

// The tests of decoders fetch `data:` URLs with a charset.
globalThis.XMLHttpRequest = class {
  open(_, url) {
    this.bytes = Uint8Array.from(unescape(url.slice(url.indexOf(",") + 1)), (char) => char.charCodeAt(0));
  }
  overrideMimeType(type) {
    this.label = /charset="(.*)"/.exec(type)[1];
  }
  send() {
    Promise.resolve().then(() => {
      this.responseText = new TextDecoder(this.label).decode(this.bytes);
      this.onload();
    });
  }
};
globalThis.gc = () => {};
globalThis.onrejectionhandled = globalThis.onunhandledrejection = null;

// Only for the constructor of `SharedArrayBuffer`.
globalThis.WebAssembly = {
  Memory: class {
    buffer = new SharedArrayBuffer(0);
  },
};

// A reader of blobs on top of their promises.
globalThis.FileReader = class extends EventTarget {
  async read(result) {
    this.result = await result;
    const event = new Event("load");
    this.onload?.(event);
    this.onloadend?.(event);
    this.dispatchEvent(event);
  }
  readAsText(blob) {
    this.read(blob.text());
  }
  readAsArrayBuffer(blob) {
    this.read(blob.arrayBuffer());
  }
};
