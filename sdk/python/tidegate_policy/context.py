"""Context of the current decision."""

from __future__ import annotations

from . import _host


def now() -> int:
    """The gateway's clock, in ms since 1970."""
    return _host.current().now()


def request_id() -> str:
    """The id of this request, as in all log lines about it."""
    return _host.current().request_id()


def action() -> str:
    """The requested action: ``stream`` or ``history``."""
    return _host.current().action()
