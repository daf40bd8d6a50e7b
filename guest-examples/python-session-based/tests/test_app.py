import unittest

from app import authorize
from tidegate_policy.testing import TestGateway


class Policy(unittest.TestCase):
    def setUp(self) -> None:
        self.gateway = TestGateway(
            {"session:alice": '{"id":"alice"}', "session:broken": '{"id":"alice"', "session:no-id": "{}"}
        )

    def test_client_with_a_session_gets_every_channel(self) -> None:
        decision = self.gateway.decide(authorize, "default", "anything", cookies={"session": "alice"})
        self.assertTrue(decision.allowed)
        self.assertEqual(decision.subject, "alice")
        self.assertEqual(decision.reason, "alice: 2 channels")

    def test_client_without_a_session_is_rejected(self) -> None:
        for session in ("", "mallory", "broken", "no-id"):
            decision = self.gateway.decide(authorize, "default", cookies={"session": session})
            self.assertEqual((decision.status, decision.text), (401, "Unauthorized"), session)

    def test_failed_lookup_is_a_503(self) -> None:
        self.gateway.store_unavailable = True
        decision = self.gateway.decide(authorize, cookies={"session": "alice"})
        self.assertEqual((decision.status, decision.text), (503, "Try again"))
