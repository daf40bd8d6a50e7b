// Selection of the policy's source file.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { BuildError } from "./errors.mjs";

const STEMS = ["policy", "src/policy", "route", "src/route", "index", "src/index"];
const ENDINGS = [".ts", ".tsx", ".mts", ".js", ".mjs", ".jsx"];

/** The source file at `path`. For a folder it is `main` of its package.json, else the first file with a usual name. */
export function findEntry(path) {
  if (!existsSync(path)) throw new BuildError(`${path}: no such file or folder`);
  if (!statSync(path).isDirectory()) return path;
  const manifest = join(path, "package.json");
  if (existsSync(manifest)) {
    let main;
    try {
      ({ main } = JSON.parse(readFileSync(manifest, "utf8")));
    } catch (error) {
      throw new BuildError(`${manifest}: ${error.message}`);
    }
    if (main) {
      if (!existsSync(join(path, main))) throw new BuildError(`${manifest}: "main" names ${main}, which does not exist`);
      return join(path, main);
    }
  }
  const found = STEMS.flatMap((stem) => ENDINGS.map((ending) => join(path, stem + ending))).find(existsSync);
  if (found) return found;
  throw new BuildError(`${path}: no policy found: name its file as "main" in package.json, or call it policy.ts`);
}
