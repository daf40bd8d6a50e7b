import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, type Question } from "@tidegate/policy/testing";
import * as policy from "./policy.ts";

const store = { "session:a1": '{"id":"alice"}', "session:broken": "{", "session:no-id": "{}" };

const ask = (session: string | undefined, channels: string[], more: Question = {}) =>
  decide(policy, { store, channels, headers: session === undefined ? {} : { cookie: `a=b; session=${session}` }, ...more });

test("without a known session nobody is let in, whatever the channel is", async () => {
  for (const session of [undefined, "", "mallory", "broken", "no-id"]) {
    const { status, body, headers } = await ask(session, ["default"]);
    assert.deepEqual([status, body, headers], [401, "Unauthorized", { "content-type": "text/plain" }], session);
  }
});

test("a user's own channels are those that begin with the id", async () => {
  const { allowed, subject, reason } = await ask("a1", ["default", "alice", "alice-notes"]);
  assert.deepEqual([allowed, subject, reason], [true, "alice", "alice: 3 channels"]);
  for (const channel of ["bob", "alicette", "Alice", ""]) {
    const decided = await ask("a1", ["alice", channel]);
    assert.deepEqual([decided.status, decided.body], [403, "You can only access your own channels"]);
    assert.equal(decided.reason, `${channel} is not a channel of alice`);
  }
});

test("a look-up without an answer says nothing about the client", async () => {
  const { status, body, reason } = await ask("a1", ["default"], { store: "away" });
  assert.deepEqual([status, body, reason], [503, "Try again", "look-up unavailable"]);
});
