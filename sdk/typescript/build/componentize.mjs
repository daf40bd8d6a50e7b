// The second half of a build, in a process of its own: a program in JavaScript and the interface, to a component.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [source, output, wit, modules] = process.argv.slice(2);
const { componentize } = await import(pathToFileURL(join(modules, "@bytecodealliance/componentize-js/src/componentize.js")).href);

const { component } = await componentize({
  sourcePath: source,
  witPath: wit,
  worldName: "prepared-policy",
  disableFeatures: (process.env.TIDEGATE_POLICY_WITHOUT ?? "fetch-event").split(","),
});
await writeFile(output, component);
