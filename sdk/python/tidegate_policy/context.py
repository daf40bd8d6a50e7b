"""About the decision that is being made."""

from __future__ import annotations

from . import _world


def now() -> int:
    """Tidegate's clock, ms since 1970."""
    return _world.current().now()


def request_id() -> str:
    """The same in every log line about this request."""
    return _world.current().request_id()


def action() -> str:
    """``stream`` or ``history``."""
    return _world.current().action()
