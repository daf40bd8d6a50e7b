import unittest
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_policy import settings
from tidegate_policy.testing import TestGateway


@dataclass(slots=True)
class Config:
    audience: str
    ratio: float
    limit: int = 10
    strict: bool = False
    teams: list[str] = field(default_factory=list)
    note: str | None = None


class Settings(unittest.TestCase):
    def load(self, **values: str) -> Config:
        with TestGateway(settings=values):
            return settings.load(Config)

    def test_get(self) -> None:
        with TestGateway(settings={"a": "b", "empty": ""}):
            self.assertEqual((settings.get("a"), settings.get("c"), settings.get("c", "d")), ("b", None, "d"))
            self.assertEqual(settings.get("empty", "d"), "")

    def test_missing_settings_leave_defaults(self) -> None:
        self.assertEqual(self.load(audience="app", ratio="0.5"), Config("app", 0.5, 10, False, [], None))

    def test_fields_are_parsed_by_type(self) -> None:
        config = self.load(audience="app", ratio="1", limit="3", strict="true", teams="red, blue", note="x")
        self.assertEqual(config, Config("app", 1.0, 3, True, ["red", "blue"], "x"))

    def test_named_tuple_is_loaded(self) -> None:
        class Small(NamedTuple):
            name: str
            size: int | None

        with TestGateway(settings={"name": "a"}):
            self.assertEqual(settings.load(Small), Small("a", None))

    def test_error_names_the_setting_but_not_its_value(self) -> None:
        with self.assertRaisesRegex(ValueError, "the setting audience is missing"):
            self.load(ratio="1")
        with self.assertRaisesRegex(ValueError, "^the setting limit is not a valid int$"):
            self.load(audience="app", ratio="1", limit="s3cret")
        with self.assertRaisesRegex(ValueError, "^the setting strict is not a valid bool$"):
            self.load(audience="app", ratio="1", strict="s3cret")
