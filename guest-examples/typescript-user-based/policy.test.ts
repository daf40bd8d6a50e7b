import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, type DecideOptions } from "@tidegate/policy/testing";
import * as policy from "./policy.ts";

const store = { "session:a1": '{"id":"alice"}', "session:broken": "{", "session:no-id": "{}" };

const decideFor = (session: string | undefined, channels: string[], options: DecideOptions = {}) =>
  decide(policy, { store, channels, headers: session === undefined ? {} : { cookie: `a=b; session=${session}` }, ...options });

test("every channel requires a session", async () => {
  for (const session of [undefined, "", "mallory", "broken", "no-id"]) {
    const { status, body, headers } = await decideFor(session, ["default"]);
    assert.deepEqual([status, body, headers], [401, "Unauthorized", { "content-type": "text/plain" }], session);
  }
});

test("users get only their own channels", async () => {
  const { allowed, subject, reason } = await decideFor("a1", ["default", "alice", "alice-notes"]);
  assert.deepEqual([allowed, subject, reason], [true, "alice", "alice: 3 channels"]);
  for (const channel of ["bob", "alicette", "Alice", ""]) {
    const decision = await decideFor("a1", ["alice", channel]);
    assert.deepEqual([decision.status, decision.body], [403, "You can only access your own channels"]);
    assert.equal(decision.reason, `${channel} is not a channel of alice`);
  }
});

test("failed look-up is a 503", async () => {
  const { status, body, reason } = await decideFor("a1", ["default"], { store: "unavailable" });
  assert.deepEqual([status, body, reason], [503, "Try again", "look-up unavailable"]);
});
