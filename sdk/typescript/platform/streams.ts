// In this engine a readable stream is not iterable.
import { patch } from "./patch.ts";

async function* values(this: ReadableStream, { preventCancel = false }: { preventCancel?: boolean } = {}) {
  const reader = this.getReader();
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      ended = done;
      if (done) return;
      yield value;
    }
  } finally {
    if (!ended && !preventCancel) await reader.cancel();
    reader.releaseLock();
  }
}

patch(ReadableStream.prototype, { values });
Object.defineProperty(ReadableStream.prototype, Symbol.asyncIterator, { value: values, writable: true, configurable: true });
