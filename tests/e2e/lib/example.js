// The example policy with its sessions and teams, and configurations, for all suites.
import { join } from "node:path";
import { REPO, startGateway, toml } from "./gateway.js";

/** The token that the tests' configurations accept on `/redis`. */
export const TOKEN = "e2e-token";

/** The example policy as a component. */
export const POLICY = join(REPO, "guest-examples/rust-role-based/policy.wasm");

/** Session ids, the values of the cookie. Mallory's is not in the store. */
export const SESSION = { alice: "sid-a1", bob: "sid-b2", root: "sid-r3", mallory: "sid-m4" };

/** Writes the sessions and teams into Redis. */
export async function seed(resp) {
  const roles = { alice: "member", bob: "member", root: "admin" };
  for (const [id, role] of Object.entries(roles)) {
    await resp.command("SET", `session:${SESSION[id]}`, JSON.stringify({ id, role }));
  }
  await resp.command("SADD", "team:red:members", "alice");
  await resp.command("SADD", "team:blue:members", "bob");
}

/** A tidegate.toml with the example policy. */
export function policyConfig({ store, origin, policy = POLICY, options = "", cors = "" }) {
  return `listen = "127.0.0.1:0"
control.listen = "127.0.0.1:0"
drain.delay = "0s"
store = ${toml(store)}
${options}

[policy]
file = ${toml(policy)}

[policy.lookup]
prefixes = ["session:", "team:"]

[cors]
origins = ${toml([origin])}
credentials = true
${cors}

[redis-rest]
tokens = ${toml([TOKEN])}

[stream]
ping-interval = "25s"
`;
}

/** Starts a gateway that admits all clients, and stops it at the end of the suite. */
export async function startAllowAll(closing, { name, store, dir }) {
  const config = `listen = "127.0.0.1:0"
control.listen = "127.0.0.1:0"
drain.delay = "0s"
store = ${toml(store)}

[redis-rest]
tokens = ${toml([TOKEN])}
`;
  return closing.add(await startGateway({ name, args: ["serve", "--allow-all"], config, dir }), (it) => it.stop());
}
