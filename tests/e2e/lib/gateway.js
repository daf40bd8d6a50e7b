// The gateway under test, as a process.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Child } from "./child.js";

/** The root of the repository. */
export const REPO = fileURLToPath(new URL("../../../", import.meta.url));

/** The program. */
export const BINARY = process.env.TIDEGATE_BIN || join(REPO, "target/debug/tidegate");

/**
 * Starts `tidegate <args>` and waits until it prints its address, at most `within` ms: the start may compile a large policy. `config` is
 * the text of a tidegate.toml, which is written into `dir`. The returned process has `url` and `port`; for `serve` also `control`.
 */
export async function startGateway({ args, config, dir, name = "tidegate", within }) {
  const all = [...args];
  if (config !== undefined) {
    const file = join(dir, `${name.replace(/\W+/g, "-")}.toml`);
    writeFileSync(file, config);
    all.push("--config", file);
  }
  // The environment of the test run must not configure the gateway.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("TIDEGATE_")));
  // Keep all files within the checkout.
  env.TIDEGATE_CACHE_DIR = join(REPO, "target/tmp");
  const gateway = new Child(name, BINARY, all, { env });
  try {
    const [, port] = await gateway.line(/\blistening on http:\/\/127\.0\.0\.1:(\d+)/, within);
    gateway.port = Number(port);
    gateway.url = `http://127.0.0.1:${port}`;
    if (args[0] === "serve") {
      const [, control] = await gateway.line(/\bcontrol on http:\/\/127\.0\.0\.1:(\d+)/);
      gateway.control = `http://127.0.0.1:${control}`;
    }
  } catch (error) {
    await gateway.kill();
    throw error;
  }
  return gateway;
}

/** Formats a string, number, boolean or list as TOML. */
export function toml(value) {
  return Array.isArray(value) ? `[${value.map(toml).join(", ")}]` : JSON.stringify(value);
}
