import unittest

from app import authorize
from tidegate_policy.testing import World


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.world = World(
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
        decision = self.world.decide(authorize, *channels, cookies={"session": session})
        got = f"in: {decision.subject}" if decision.allowed else f"{decision.status} {decision.text}"
        self.assertEqual(got, expected, f"{session} {channels}")

    def test_a_session_is_needed_for_every_channel(self) -> None:
        for session in ("", "mallory", "broken", "no-id", "number", "list"):
            self.check(session, ["default"], "401 Unauthorized")
            self.check(session, ["admin-x"], "401 Unauthorized")
        self.assertEqual(self.world.decide(authorize).reason, "no session")

    def test_own_channels(self) -> None:
        self.check("alice", ["default", "alice", "alice-", "alice-inbox"], "in: alice")
        for channel in ("alice2", "alic", "Alice", "bob-inbox", "default-2", "team", "admin"):
            self.check("alice", [channel], "403 You can only access your own channels")

    def test_channels_of_admins(self) -> None:
        self.check("root", ["admin-log"], "in: root")
        for session in ("alice", "bob", "odd-role"):
            self.check(session, ["admin-log"], "403 Admin access required")

    def test_channels_of_teams(self) -> None:
        self.check("alice", ["team-red"], "in: alice")
        self.check("bob", ["team-blue"], "in: bob")
        for session, channel in (("bob", "team-red"), ("root", "team-red"), ("alice", "team-")):
            self.check(session, [channel], "403 Not a team member")

    def test_the_first_failing_channel_decides(self) -> None:
        self.check("alice", ["default", "admin-log", "team-blue", "bob"], "403 Admin access required")
        self.check("alice", ["team-red", "team-blue", "admin-log"], "403 Not a team member")
        self.check("alice", ["bob", "admin-log"], "403 You can only access your own channels")

    def test_a_failed_look_up_is_no_verdict(self) -> None:
        self.world.prefixes = ["session:"]
        self.check("alice", ["default", "team-red"], "503 Try again")
        self.check("alice", ["admin-log", "team-red"], "403 Admin access required")
        self.world.store_away = True
        self.check("alice", ["default"], "503 Try again")

    def test_nothing_is_looked_up_in_vain(self) -> None:
        self.check("alice", ["default", "team-red", "bob", "team-blue"], "403 You can only access your own channels")
        self.assertEqual(self.world.asked, ["session:alice", "team:red:members"])

    def test_reasons_name_the_user_and_never_the_session(self) -> None:
        self.world.store["session:s3cret"] = '{"id":"bob"}'
        for channel, reason in (
            ("default", "bob: 1 channels"),
            ("admin-x", "bob is not an admin"),
            ("team-red", "bob is not in team red"),
            ("alice", "alice is not a channel of bob"),
        ):
            decision = self.world.decide(authorize, channel, cookies={"session": "s3cret"})
            self.assertEqual(decision.reason, reason)
