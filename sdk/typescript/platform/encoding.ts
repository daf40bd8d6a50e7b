// In this engine `atob` and `btoa` throw another type of error than the standard's.
import { replaceGlobal } from "./patch.ts";

for (const name of ["atob", "btoa"] as const) {
  const native = globalThis[name];
  replaceGlobal(name, (text: string) => {
    try {
      return native(text);
    } catch (error) {
      if (error instanceof RangeError) throw new DOMException("Invalid character", "InvalidCharacterError");
      throw error;
    }
  });
}
