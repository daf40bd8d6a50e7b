import unittest

from app import authorize
from tidegate_policy.testing import TestGateway


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.gateway = TestGateway(
            {
                "session:alice": '{"id":"alice"}',
                "session:s1": '{"id":"carol","role":"admin"}',
                "session:broken": '{"id":"alice"',
                "session:no-id": "{}",
            }
        )

    def check(self, session: str, channels: list[str], expected: str) -> None:
        decision = self.gateway.decide(authorize, *channels, cookies={"session": session})
        result = f"allowed {decision.subject}" if decision.allowed else f"{decision.status} {decision.text}"
        self.assertEqual(result, expected, f"{session} {channels}")

    def test_every_channel_requires_a_session(self) -> None:
        for session in ("", "mallory", "broken", "no-id"):
            self.check(session, ["default"], "401 Unauthorized")
        self.assertEqual(self.gateway.decide(authorize).reason, "no session")

    def test_users_get_only_their_own_channels(self) -> None:
        self.check("alice", ["default", "alice", "alice-inbox"], "allowed alice")
        for channel in ("alice2", "alic", "Alice", "bob-inbox", "default-2", "admin-x", ""):
            self.check("alice", [channel], "403 You can only access your own channels")

    def test_channels_follow_the_user_id_and_not_the_session(self) -> None:
        self.check("s1", ["carol-x"], "allowed carol")
        self.check("s1", ["s1"], "403 You can only access your own channels")

    def test_failed_lookup_is_a_503(self) -> None:
        self.gateway.store_unavailable = True
        self.check("alice", ["default"], "503 Try again")
