// The engine lacks `URL.canParse` and `URL.parse`.
import { patch } from "./patch.ts";

patch(URL, {
  canParse(url: string | URL, base?: string | URL) {
    return URL.parse(url, base) !== null;
  },
  parse(url: string | URL, base?: string | URL) {
    try {
      return new URL(url, base);
    } catch {
      return null;
    }
  },
});
Object.defineProperty(URL.prototype, Symbol.toStringTag, { value: "URL", configurable: true });
