import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, type DecideOptions } from "@tidegate/policy/testing";
import * as policy from "./policy.ts";

const store = {
  "session:a1": '{"id":"alice","role":"member"}',
  "session:r3": '{"id":"root","role":"admin"}',
  "session:broken": "{",
  "session:no-id": '{"role":"admin"}',
  "team:red:members": ["alice"],
};

const decideFor = (session: string | undefined, channels: string[], options: DecideOptions = {}) =>
  decide(policy, { store, channels, headers: session === undefined ? {} : { cookie: `a=b; session=${session}` }, ...options });

test("every channel requires a session", async () => {
  for (const session of [undefined, "", "mallory", "broken", "no-id"]) {
    const { status, body, headers } = await decideFor(session, ["default"]);
    assert.deepEqual([status, body, headers], [401, "Unauthorized", { "content-type": "text/plain" }], session);
  }
});

test("subject of a grant is the user's id", async () => {
  const { allowed, subject, reason } = await decideFor("a1", ["default", "alice", "alice-notes", "team-red"]);
  assert.deepEqual([allowed, subject, reason], [true, "alice", "alice: 4 channels"]);
});

test("first failing channel determines the rejection", async () => {
  for (const [session, channel, body, reason] of [
    ["a1", "admin-ops", "Admin access required", "alice is not an admin"],
    ["a1", "team-blue", "Not a team member", "alice is not in team blue"],
    ["r3", "team-red", "Not a team member", "root is not in team red"],
    ["a1", "alicette", "You can only access your own channels", "alicette is not a channel of alice"],
  ] as const) {
    const decision = await decideFor(session, ["default", channel, "admin-first"]);
    assert.deepEqual([decision.status, decision.body, decision.reason], [403, body, reason]);
  }
  assert.equal((await decideFor("r3", ["admin-ops"])).allowed, true);
});

test("failed look-up is a 503", async () => {
  const unavailable = await decideFor("a1", ["default"], { store: "unavailable" });
  assert.deepEqual([unavailable.status, unavailable.body, unavailable.reason], [503, "Try again", "look-up unavailable"]);
  const denied = await decideFor("a1", ["team-red"], { prefixes: ["session:"] });
  assert.deepEqual([denied.status, denied.body, denied.reason], [503, "Try again", "look-up denied"]);
});
