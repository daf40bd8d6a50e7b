// The blocks of the documents in TypeScript and TSX parse.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { transform } from "esbuild";

const root = join(import.meta.dirname, "../..");

test("TypeScript and TSX blocks of the documents parse", async () => {
  const pages = readdirSync(join(root, "docs"), { recursive: true }).filter((name) => name.endsWith(".md"));
  let blocks = 0;
  for (const page of ["README.md", ...pages.map((name) => join("docs", name))]) {
    const text = readFileSync(join(root, page), "utf8");
    for (const [, loader, code] of text.matchAll(/^ *```(tsx|ts|js)\b(?!.*ignore).*\n([^]*?)^ *```$/gm)) {
      blocks += 1;
      await assert.doesNotReject(transform(code, { loader, jsx: "automatic", sourcefile: page }), page);
    }
  }
  assert.ok(blocks >= 3, `${blocks} blocks`);
});
