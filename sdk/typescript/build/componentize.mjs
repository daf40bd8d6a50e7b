// The second half of a build, in a process of its own: a program in JavaScript and the interface, to a component.
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
 * componentize-js puts a trap in place of the randomness that C code asks for, as if the engine's own were all there is; but its
 * OpenSSL checks the keys of RSA and of elliptic curves with it. Under another name it is not found there.
 */
function keepRandomness(splicer) {
  const name = (text) => Buffer.from(`\u0016wasi_snapshot_preview1\u000a${text}`);
  const rename = (wasm, from, to) => {
    const bytes = Buffer.from(wasm);
    const at = bytes.indexOf(name(from));
    if (at < 0) throw new Error(`this componentize-js is not the one that the build was made for: no import ${from}`);
    name(to).copy(bytes, at);
    return bytes;
  };
  const original = splicer.stubWasi;
  splicer.stubWasi = (wasm, ...rest) => rename(original(rename(wasm, "random_get", "random_gEt"), ...rest), "random_gEt", "random_get");
}
