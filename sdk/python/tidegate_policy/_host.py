"""The host functions that the SDK calls: those of the gateway in a component, those of a ``TestGateway`` in a test."""

from __future__ import annotations

from typing import Protocol

from ._errors import NoGateway


class Host(Protocol):
    """The imports of ``wit/policy.wit`` in Python's types."""

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


class _NoHost:
    def __getattr__(self, name: str):
        raise NoGateway(
            "there is no gateway here: in a test use tidegate_policy.testing.TestGateway; in a policy call this inside "
            "authorize, because the top level of its modules runs once, at build"
        )


no_host = _NoHost()


def text(value: str, name: str) -> str:
    """Checks that ``value`` is text. Passing anything else to the gateway would be a trap."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text (str), not {type(value).__name__}")
    if not value.isascii():
        value.encode()  # raises for lone surrogates, which JSON can contain
    return value


def count(value: int, bits: int, name: str) -> int:
    """Checks that ``value`` is an unsigned integer of ``bits`` bits."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number (int), not {type(value).__name__}")
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} must be from 0 to {(1 << bits) - 1}, not {value}")
    return value


_current: Host = no_host  # type: ignore[assignment]


def current() -> Host:
    """The current host."""
    return _current


def set_current(host: Host) -> Host:
    """Sets the current host and returns the previous one."""
    global _current
    before, _current = _current, host
    return before
