"""Python's logging, wired to the gateway's log."""

from __future__ import annotations

import logging

from . import _world

#: The policy's logger; any other of ``logging.getLogger`` goes to the same log.
log = logging.getLogger("policy")


class Handler(logging.Handler):
    """Writes records to the gateway's log, which adds time, request and policy."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _world.current().log(level_of(record.levelno), self.format(record))
        except Exception:  # as every handler of the standard library
            self.handleError(record)


def level_of(number: int) -> str:
    """The name of the gateway's level."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


def install() -> None:
    """Makes the gateway's log the only one. What the policy set up for itself stays."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Handler())
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
