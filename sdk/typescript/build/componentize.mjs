// The second half of a build, in its own process: builds a component from a JavaScript program and the interface.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [source, output, wit, modules] = process.argv.slice(2);
const tool = (path) => import(pathToFileURL(join(modules, "@bytecodealliance/componentize-js", path)).href);
const { splicer } = await tool("lib/spidermonkey-embedding-splicer.js");
const { componentize } = await tool("src/componentize.js");
keepRandomness(splicer);

const { component } = await componentize({ sourcePath: source, witPath: wit, worldName: "prepared-policy", disableFeatures: ["fetch-event"] });
await writeFile(output, component);

/**
 * componentize-js replaces the import of randomness for C code with a trap, but its OpenSSL needs it to check RSA and elliptic-curve keys.
 * Under another name the import is not found and not replaced.
 */
function keepRandomness(splicer) {
  const name = (text) => Buffer.from(`\u0016wasi_snapshot_preview1\u000a${text}`);
  const rename = (wasm, from, to) => {
    const bytes = Buffer.from(wasm);
    const at = bytes.indexOf(name(from));
    if (at < 0) throw new Error(`unsupported version of componentize-js: it has no import ${from}`);
    name(to).copy(bytes, at);
    return bytes;
  };
  const original = splicer.stubWasi;
  splicer.stubWasi = (wasm, ...rest) => rename(original(rename(wasm, "random_get", "random_gEt"), ...rest), "random_gEt", "random_get");
}
