"""The example policies decide the suite that all languages share, here without a component."""

import runpy
import tomllib
import unittest
from pathlib import Path
from urllib.parse import urlencode

from tidegate_policy.testing import World

EXAMPLES = Path(__file__).parents[3] / "guest-examples"


@unittest.skipUnless(EXAMPLES.is_dir(), "the SDK is not in Tidegate's repository")
class Examples(unittest.TestCase):
    def test_user_based(self) -> None:
        self.decides("user")

    def test_session_based(self) -> None:
        self.decides("session")

    def test_role_based(self) -> None:
        self.decides("role")

    def decides(self, pattern: str) -> None:
        authorize = runpy.run_path(str(EXAMPLES / f"python-{pattern}-based" / "app.py"))["authorize"]
        suite = tomllib.loads((EXAMPLES / "cases" / f"{pattern}.toml").read_text())
        for case in suite["case"]:
            with self.subTest(case["name"]):
                self.check(authorize, {**suite, **case})

    def check(self, authorize, case: dict) -> None:
        world = World(case["store"], prefixes=case["lookup"]["prefixes"], store_away=case.get("store-unavailable", False))
        headers = [
            (name, value)
            for name, values in case.get("request", {}).get("headers", {}).items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        asked = list(dict.fromkeys(case.get("channels", ["default"])))
        path = f"/api/realtime?{urlencode([('channel', channel) for channel in asked])}"
        decision = world.decide(authorize, *asked, headers=headers, path=path)
        expect = case["expect"]
        if expect.get("allow"):
            self.assertEqual((decision.allowed, decision.subject), (True, expect["subject"]))
        else:
            self.assertEqual(
                (decision.allowed, decision.status, decision.text), (False, expect["status"], expect["body"])
            )
        self.assertEqual(dict(decision.headers), expect["headers"])
        self.assertEqual(decision.reason, expect["reason"])
