// What an app needs of the web's standards that not every component has to carry.
import { join } from "node:path";

const PROPERTY = /\\{1,2}[pP]\{([\w=]+)\}/g;

/** Modules of made-up names for the runtime's bundle, by what the app's code mentions. */
export function needs({ codes, sdk }) {
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
    "tidegate:needs": files.map((file) => `import ${JSON.stringify(file)};`).join("\n"),
    "tidegate:unicode": `export default ${JSON.stringify(table)};`,
  };
}

/** The code points of a property and all others, each as what stands between the brackets of a class. Node has the tables. */
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
