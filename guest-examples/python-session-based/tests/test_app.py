import unittest

from app import authorize
from tidegate_policy.testing import World


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.world = World(
            {"session:alice": '{"id":"alice"}', "session:broken": '{"id":"alice"', "session:no-id": "{}"}
        )

    def test_with_a_session_every_channel_is_allowed(self) -> None:
        decision = self.world.decide(authorize, "default", "anything", cookies={"session": "alice"})
        self.assertTrue(decision.allowed)
        self.assertEqual(decision.subject, "alice")
        self.assertEqual(decision.reason, "alice: 2 channels")

    def test_without_one_none_is(self) -> None:
        for session in ("", "mallory", "broken", "no-id"):
            decision = self.world.decide(authorize, "default", cookies={"session": session})
            self.assertEqual((decision.status, decision.text), (401, "Unauthorized"), session)

    def test_a_failed_look_up_is_no_verdict(self) -> None:
        self.world.store_away = True
        decision = self.world.decide(authorize, cookies={"session": "alice"})
        self.assertEqual((decision.status, decision.text), (503, "Try again"))
