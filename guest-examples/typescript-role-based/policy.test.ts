import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, type Question } from "@tidegate/policy/testing";
import * as policy from "./policy.ts";

const store = {
  "session:a1": '{"id":"alice","role":"member"}',
  "session:r3": '{"id":"root","role":"admin"}',
  "session:broken": "{",
  "session:no-id": '{"role":"admin"}',
  "team:red:members": ["alice"],
};

const ask = (session: string | undefined, channels: string[], more: Question = {}) =>
  decide(policy, { store, channels, headers: session === undefined ? {} : { cookie: `a=b; session=${session}` }, ...more });

test("without a known session nobody is let in, whatever the channel is", async () => {
  for (const session of [undefined, "", "mallory", "broken", "no-id"]) {
    const { status, body, headers } = await ask(session, ["default"]);
    assert.deepEqual([status, body, headers], [401, "Unauthorized", { "content-type": "text/plain" }], session);
  }
});

test("a session is let in by its user's name", async () => {
  const { allowed, subject, reason } = await ask("a1", ["default", "alice", "alice-notes", "team-red"]);
  assert.deepEqual([allowed, subject, reason], [true, "alice", "alice: 4 channels"]);
});

test("the first channel that fails decides", async () => {
  for (const [session, channel, body, reason] of [
    ["a1", "admin-ops", "Admin access required", "alice is not an admin"],
    ["a1", "team-blue", "Not a team member", "alice is not in team blue"],
    ["r3", "team-red", "Not a team member", "root is not in team red"],
    ["a1", "alicette", "You can only access your own channels", "alicette is not a channel of alice"],
  ] as const) {
    const decided = await ask(session, ["default", channel, "admin-first"]);
    assert.deepEqual([decided.status, decided.body, decided.reason], [403, body, reason]);
  }
  assert.equal((await ask("r3", ["admin-ops"])).allowed, true);
});

test("a look-up without an answer says nothing about the client", async () => {
  const away = await ask("a1", ["default"], { store: "away" });
  assert.deepEqual([away.status, away.body, away.reason], [503, "Try again", "look-up unavailable"]);
  const denied = await ask("a1", ["team-red"], { prefixes: ["session:"] });
  assert.deepEqual([denied.status, denied.body, denied.reason], [503, "Try again", "look-up denied"]);
});
