// Builds policies in TypeScript below `routes`, and serves them.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BINARY, REPO, startGateway, toml } from "./gateway.js";

export const ROUTES = fileURLToPath(new URL("../routes/", import.meta.url));

/** Runs `tidegate` below `routes`. Its environment must not become part of a component. */
export function tidegate(...args) {
  const env = { ...process.env, AUDIENCE: "of-the-build-machine", TIDEGATE_CACHE_DIR: join(REPO, "target/tmp") };
  const run = spawnSync(BINARY, args, { cwd: ROUTES, env, encoding: "utf8" });
  return { code: run.status, stdout: run.stdout, stderr: run.stderr };
}

/** Runs `tidegate policy build`. */
export function build(path, output, ...options) {
  return tidegate("policy", "build", path, "-o", output, ...options);
}

/** Starts a gateway with this policy, and further lines of a tidegate.toml. */
export async function serve(closing, dir, policy, options = "") {
  const config = `listen = "127.0.0.1:0"
drain.delay = "0s"
control.listen = "127.0.0.1:0"
store = "memory:"

[policy]
file = ${toml(policy)}
# Machines of CI are slow, and so are debug builds of the gateway. Benchmarks measure the CPU time of policies.
cpu-time = "5s"
timeout = "10s"
${options}`;
  return closing.add(await startGateway({ args: ["serve"], config, dir, within: 300_000 }), (it) => it.stop());
}
