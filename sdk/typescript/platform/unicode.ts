// `\p{…}` in regular expressions: the engine is built without Unicode's tables, so the build brings those that the app names.
import table from "tidegate:unicode";
import { replaceGlobal } from "./patch.ts";

const Native = RegExp;

/** The pattern with the code points in place of the properties. */
function expand(pattern: string): string {
  let inClass = false;
  return pattern.replace(/\\([pP])\{([^}]*)\}|\\[^]|[[\]]/g, (all, which?: string, property?: string) => {
    if (all === "[") inClass = true;
    else if (all === "]") inClass = false;
    if (!which || property === undefined) return all;
    const found = table[property];
    if (!found) throw new SyntaxError(`the regular expression /${pattern}/ names ${all}, which is nowhere in the source: write it out once, for the build to see`);
    const [inside, outside] = found;
    const points = which === "p" ? inside : outside;
    return inClass ? points : `[${points}]`;
  });
}

function given(args: unknown[]): unknown[] {
  const [pattern, flags] = args;
  const isUnicode = typeof flags === "string" && /[uv]/.test(flags);
  return isUnicode && typeof pattern === "string" && /\\[pP]\{/.test(pattern) ? [expand(pattern), flags] : args;
}

const Expanding: RegExpConstructor = new Proxy(Native, {
  construct: (target, args, newTarget) => Reflect.construct(target, given(args), newTarget === Expanding ? target : newTarget),
  apply: (target, self, args) => Reflect.apply(target, self, given(args)),
});
Native.prototype.constructor = Expanding;
replaceGlobal("RegExp", Expanding);
