// Closes everything that a suite opened, in reverse order, even if closing one of them fails.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class Closing {
  #closers = [];

  /** Registers `resource` with the function that closes it; returns `resource`. */
  add(resource, close) {
    this.#closers.push(() => close(resource));
    return resource;
  }

  /** A directory that is removed at the end, even if the test process fails with an exception. */
  dir(prefix = "tidegate-e2e-") {
    const path = mkdtempSync(join(tmpdir(), prefix));
    const remove = () => rmSync(path, { recursive: true, force: true });
    process.once("exit", remove);
    this.#closers.push(() => {
      process.removeListener("exit", remove);
      remove();
    });
    return path;
  }

  async run() {
    const failures = [];
    for (const close of this.#closers.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, "closing failed");
  }
}
