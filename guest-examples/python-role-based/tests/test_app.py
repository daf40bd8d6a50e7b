import unittest

from app import authorize
from tidegate_policy.testing import TestGateway


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.gateway = TestGateway(
            {
                "session:alice": '{"id":"alice","role":"member"}',
                "session:bob": '{"id":"bob"}',
                "session:root": '{"id":"root","role":"admin"}',
                "session:odd-role": '{"id":"bob","role":["admin"]}',
                "session:broken": '{"id":"alice"',
                "session:no-id": '{"role":"admin"}',
                "session:number": '{"id":7}',
                "session:list": '["alice","admin"]',
                "team:red:members": {"alice"},
                "team:blue:members": {"bob"},
            }
        )

    def check(self, session: str, channels: list[str], expected: str) -> None:
        decision = self.gateway.decide(authorize, *channels, cookies={"session": session})
        result = f"allowed {decision.subject}" if decision.allowed else f"{decision.status} {decision.text}"
        self.assertEqual(result, expected, f"{session} {channels}")

    def test_every_channel_requires_a_session(self) -> None:
        for session in ("", "mallory", "broken", "no-id", "number", "list"):
            self.check(session, ["default"], "401 Unauthorized")
            self.check(session, ["admin-x"], "401 Unauthorized")
        self.assertEqual(self.gateway.decide(authorize).reason, "no session")

    def test_users_get_their_own_channels(self) -> None:
        self.check("alice", ["default", "alice", "alice-", "alice-inbox"], "allowed alice")
        for channel in ("alice2", "alic", "Alice", "bob-inbox", "default-2", "team", "admin"):
            self.check("alice", [channel], "403 You can only access your own channels")

    def test_admin_channels_require_the_role(self) -> None:
        self.check("root", ["admin-log"], "allowed root")
        for session in ("alice", "bob", "odd-role"):
            self.check(session, ["admin-log"], "403 Admin access required")

    def test_team_channels_require_membership(self) -> None:
        self.check("alice", ["team-red"], "allowed alice")
        self.check("bob", ["team-blue"], "allowed bob")
        for session, channel in (("bob", "team-red"), ("root", "team-red"), ("alice", "team-")):
            self.check(session, [channel], "403 Not a team member")

    def test_first_failing_channel_determines_the_rejection(self) -> None:
        self.check("alice", ["default", "admin-log", "team-blue", "bob"], "403 Admin access required")
        self.check("alice", ["team-red", "team-blue", "admin-log"], "403 Not a team member")
        self.check("alice", ["bob", "admin-log"], "403 You can only access your own channels")

    def test_failed_lookup_is_a_503(self) -> None:
        self.gateway.prefixes = ["session:"]
        self.check("alice", ["default", "team-red"], "503 Try again")
        self.check("alice", ["admin-log", "team-red"], "403 Admin access required")
        self.gateway.store_unavailable = True
        self.check("alice", ["default"], "503 Try again")

    def test_only_needed_keys_are_looked_up(self) -> None:
        self.check("alice", ["default", "team-red", "bob", "team-blue"], "403 You can only access your own channels")
        self.assertEqual(self.gateway.lookups, ["session:alice", "team:red:members"])

    def test_reason_names_the_user_but_not_the_session(self) -> None:
        self.gateway.store["session:s3cret"] = '{"id":"bob"}'
        for channel, reason in (
            ("default", "bob: 1 channels"),
            ("admin-x", "bob is not an admin"),
            ("team-red", "bob is not in team red"),
            ("alice", "alice is not a channel of bob"),
        ):
            decision = self.gateway.decide(authorize, channel, cookies={"session": "s3cret"})
            self.assertEqual(decision.reason, reason)
