// Positions of stacks: from the code of the bundle to the user's files. A map is decoded when the first error of its module is printed.
import type { ProgramModule } from "./modules.ts";

/** A source map: the build writes one source and no names. */
interface SourceMap {
  sources: string[];
  mappings: string;
}

/** Segments of a line of code, by column: column, line and column of the source, counted from 0. */
type Line = [column: number, line: number, sourceColumn: number][];

/** The length of the head of a module's function, which is on the first line of its code. */
const shifts = new Map<string, number>();
const maps = new Map<string, string>();
const decoded = new Map<string, { source: string; lines: Line[] } | undefined>();

/** Keeps what stacks of these modules need. */
export function addModules(modules: ProgramModule[]): void {
  for (const { id, map, shift } of modules) {
    shifts.set(id, shift);
    if (map) maps.set(id, map);
  }
}

/** A stack with positions of the bundle's code, for the build's driver, which has all maps. */
export function codeStack(stack: string): string {
  return replacePositions(stack, (id, line, column) => `${id}:${line}:${column}`);
}

/** A stack with positions of the user's files, without frames of the platform. */
export function sourceStack(stack: string): string {
  const frames = stack.trimEnd().split("\n").filter((line) => !/\((tidegate(:\d+)*|native)\)$|^\s*at (tidegate(:\d+)*|native)$/.test(line));
  return replacePositions(frames.join("\n"), position);
}

/** Replaces the positions of a stack, whose columns are then those of the module's code. */
function replacePositions(stack: string, by: (id: string, line: number, column: number) => string): string {
  return stack.replace(/([^\s(]+):(\d+):(\d+)(?=\)?$)/gm, (_, id: string, line: string, column: string) => {
    const shift = line === "1" ? (shifts.get(id) ?? 0) : 0;
    return by(id, Number(line), Number(column) - shift);
  });
}

function position(id: string, line: number, column: number): string {
  if (!decoded.has(id)) decoded.set(id, decode(maps.get(id)));
  const map = decoded.get(id);
  // The last segment that starts at or before the column.
  const segment = map?.lines[line - 1]?.findLast(([start]) => start <= column - 1);
  return map && segment ? `${map.source}:${segment[1] + 1}:${segment[2] + 1}` : `${id}:${line}:${column}`;
}

function decode(json: string | undefined): { source: string; lines: Line[] } | undefined {
  if (!json) return undefined;
  const { sources, mappings }: SourceMap = JSON.parse(json);
  let sourceLine = 0;
  let sourceColumn = 0;
  const lines = mappings.split(";").map((text) => {
    let column = 0;
    const line: Line = [];
    for (const segment of text.split(",")) {
      const [columns, , lines, sourceColumns] = numbers(segment);
      if (columns === undefined) continue;
      column += columns;
      if (lines === undefined || sourceColumns === undefined) continue;
      sourceLine += lines;
      sourceColumn += sourceColumns;
      line.push([column, sourceLine, sourceColumn]);
    }
    return line;
  });
  return { source: sources[0] ?? "", lines };
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The numbers of a segment: base64 digits of 5 bits, the lowest first; the lowest bit of a number is its sign. */
function numbers(segment: string): number[] {
  const found: number[] = [];
  let value = 0;
  let shift = 0;
  for (const char of segment) {
    const digit = DIGITS.indexOf(char);
    value += (digit & 31) * 2 ** shift;
    shift += 5;
    if (digit & 32) continue;
    found.push(value % 2 === 1 ? -Math.floor(value / 2) : value / 2);
    value = shift = 0;
  }
  return found;
}
