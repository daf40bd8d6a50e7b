// `\p{…}` in regular expressions: the engine is built without Unicode tables, so the build adds those that the app uses.
import table from "tidegate:unicode";
import { replaceGlobal } from "./patch.ts";

const Native = RegExp;

/** Replaces the properties in a pattern by their code points. */
function expand(pattern: string): string {
  let inClass = false;
  return pattern.replace(/\\([pP])\{([^}]*)\}|\\[^]|[[\]]/g, (all, which?: string, property?: string) => {
    if (all === "[") inClass = true;
    else if (all === "]") inClass = false;
    if (!which || property === undefined) return all;
    const found = table[property];
    if (!found) throw new SyntaxError(`the regular expression /${pattern}/ uses ${all}, which is not in the source: write it in a literal, so that the build includes its table`);
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
