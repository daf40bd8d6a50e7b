// In this engine `abort()` without a reason throws, and `AbortSignal.any` loses the reason.
import { patch } from "./patch.ts";

const abort = AbortController.prototype.abort;

patch(AbortController.prototype, {
  abort(this: AbortController, reason?: unknown) {
    abort.call(this, reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason);
  },
});

patch(AbortSignal, {
  abort(reason?: unknown) {
    const controller = new AbortController();
    controller.abort(reason);
    return controller.signal;
  },
  timeout(delay: number) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")), delay);
    return controller.signal;
  },
  any(signals: Iterable<AbortSignal>) {
    const controller = new AbortController();
    for (const signal of signals) {
      if (signal.aborted) {
        controller.abort(signal.reason);
        break;
      }
      signal.addEventListener("abort", () => controller.abort(signal.reason), { once: true });
    }
    return controller.signal;
  },
});

patch(AbortSignal.prototype, {
  throwIfAborted(this: AbortSignal) {
    if (this.aborted) throw this.reason;
  },
});
