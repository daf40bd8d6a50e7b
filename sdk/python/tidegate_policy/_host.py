"""The one seam between the SDK and what is around it: the gateway in a component, a fake one in a test."""

from __future__ import annotations

from typing import Protocol

from ._errors import NoGateway


class World(Protocol):
    """What ``wit/policy.wit`` gives a policy to import, in Python's types."""

    def now(self) -> int: ...
    def request_id(self) -> str: ...
    def action(self) -> str: ...
    def log(self, level: str, message: str) -> None: ...
    def reason(self, text: str) -> None: ...
    def replay_since(self, time: int) -> None: ...
    def cache_for(self, seconds: int, vary: list[str]) -> None: ...
    def cache_any_address(self) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def hash_get(self, key: str, field: str) -> bytes | None: ...
    def set_contains(self, key: str, member: str) -> bool: ...
    def verify(self, token: str) -> str: ...
    def verify_with(self, profile: str, token: str) -> str: ...
    def setting(self, name: str) -> str | None: ...


class _Nowhere:
    def __getattr__(self, name: str):
        raise NoGateway(
            "there is no gateway here: in a test use tidegate_policy.testing.World; in a policy ask inside authorize, "
            "since the top level of its modules runs once, while it is built"
        )


nowhere = _Nowhere()


def text(value: str, what: str) -> str:
    """``value``, if the gateway can be told it: what is no text would be a trap there, and is an error here."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is text (str), not {type(value).__name__}")
    if not value.isascii():
        value.encode()  # half surrogates, as JSON may bring, are no text
    return value


def count(value: int, bits: int, what: str) -> int:
    """``value``, if it is a number that the gateway can be told."""
    if not isinstance(value, int):
        raise TypeError(f"{what} is a whole number (int), not {type(value).__name__}")
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{what} is from 0 to {(1 << bits) - 1}, not {value}")
    return value


_current: World = nowhere  # type: ignore[assignment]


def current() -> World:
    """The world that is in place."""
    return _current


def enter(world: World) -> World:
    """Puts a world in place and returns the one that was there."""
    global _current
    before, _current = _current, world
    return before
