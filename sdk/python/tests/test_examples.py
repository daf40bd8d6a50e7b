"""The example policies pass the test cases that all languages share, here without a component."""

import runpy
import tomllib
import unittest
from pathlib import Path
from urllib.parse import urlencode

from tidegate_policy.testing import TestGateway

EXAMPLES = Path(__file__).parents[3] / "guest-examples"


@unittest.skipUnless(EXAMPLES.is_dir(), "the SDK is not in Tidegate's repository")
class Examples(unittest.TestCase):
    def test_user_based(self) -> None:
        self.check_all("user")

    def test_session_based(self) -> None:
        self.check_all("session")

    def test_role_based(self) -> None:
        self.check_all("role")

    def check_all(self, pattern: str) -> None:
        authorize = runpy.run_path(str(EXAMPLES / f"python-{pattern}-based" / "app.py"))["authorize"]
        suite = tomllib.loads((EXAMPLES / "cases" / f"{pattern}.toml").read_text())
        for case in suite["case"]:
            with self.subTest(case["name"]):
                self.check(authorize, {**suite, **case})

    def check(self, authorize, case: dict) -> None:
        unavailable = case.get("store-unavailable", False)
        gateway = TestGateway(case["store"], prefixes=case["lookup"]["prefixes"], store_unavailable=unavailable)
        headers = [
            (name, value)
            for name, values in case.get("request", {}).get("headers", {}).items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        channels = list(dict.fromkeys(case.get("channels", ["default"])))
        path = f"/api/realtime?{urlencode([('channel', channel) for channel in channels])}"
        decision = gateway.decide(authorize, *channels, headers=headers, path=path)
        expect = case["expect"]
        if expect.get("allow"):
            self.assertEqual((decision.allowed, decision.subject), (True, expect["subject"]))
        else:
            self.assertEqual(
                (decision.allowed, decision.status, decision.text), (False, expect["status"], expect["body"])
            )
        self.assertEqual(dict(decision.headers), expect["headers"])
        self.assertEqual(decision.reason, expect["reason"])
