import unittest

from app import authorize
from tidegate_policy.testing import World


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.world = World(
            {
                "session:alice": '{"id":"alice"}',
                "session:s1": '{"id":"carol","role":"admin"}',
                "session:broken": '{"id":"alice"',
                "session:no-id": "{}",
            }
        )

    def check(self, session: str, channels: list[str], expected: str) -> None:
        decision = self.world.decide(authorize, *channels, cookies={"session": session})
        got = f"in: {decision.subject}" if decision.allowed else f"{decision.status} {decision.text}"
        self.assertEqual(got, expected, f"{session} {channels}")

    def test_a_session_is_needed_for_every_channel(self) -> None:
        for session in ("", "mallory", "broken", "no-id"):
            self.check(session, ["default"], "401 Unauthorized")
        self.assertEqual(self.world.decide(authorize).reason, "no session")

    def test_own_channels(self) -> None:
        self.check("alice", ["default", "alice", "alice-inbox"], "in: alice")
        for channel in ("alice2", "alic", "Alice", "bob-inbox", "default-2", "admin-x", ""):
            self.check("alice", [channel], "403 You can only access your own channels")

    def test_the_id_counts_and_not_the_session(self) -> None:
        self.check("s1", ["carol-x"], "in: carol")
        self.check("s1", ["s1"], "403 You can only access your own channels")

    def test_a_failed_look_up_is_no_verdict(self) -> None:
        self.world.store_away = True
        self.check("alice", ["default"], "503 Try again")
