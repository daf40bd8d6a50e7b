// Selection of the optional polyfills that an app uses.
import { join } from "node:path";

const PROPERTY = /\\{1,2}[pP]\{([\w=]+)\}/g;

/** The virtual modules of the runtime's bundle, by what the app's code mentions. */
export function polyfills({ codes, sdk }) {
  const text = codes.join("\n");
  const parts = [
    ["crypto/index.ts", /\bsubtle\b/],
    ["buffer.ts", /\bBuffer\b/],
    ["normalize.ts", /\.normalize\(/],
    ["unicode.ts", PROPERTY],
  ];
  const files = parts.filter(([, sign]) => text.search(sign) >= 0).map(([file]) => join(sdk, "platform", file));
  const properties = [...new Set([...text.matchAll(PROPERTY)].map(([, name]) => name))];
  const table = Object.fromEntries(properties.map((name) => [name, codePoints(name)]).filter(([, points]) => points));
  return {
    "tidegate:polyfills": files.map((file) => `import ${JSON.stringify(file)};`).join("\n"),
    "tidegate:unicode": `export default ${JSON.stringify(table)};`,
  };
}

/** The code points of a property, and all others, each as the content of a character class. Node has the Unicode tables. */
function codePoints(property) {
  let pattern;
  try {
    pattern = new RegExp(`^\\p{${property}}$`, "u");
  } catch {
    return undefined;
  }
  const classes = ["", ""];
  for (let first = 0, is = null, point = 0; point <= 0x110000; point++) {
    const now = point === 0x110000 ? null : pattern.test(String.fromCodePoint(point));
    if (now === is) continue;
    if (is !== null) classes[is ? 0 : 1] += `\\u{${first.toString(16)}}-\\u{${(point - 1).toString(16)}}`;
    [first, is] = [point, now];
  }
  return classes;
}
