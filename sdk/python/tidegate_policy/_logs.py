"""A handler that writes Python's logging to the gateway's log."""

from __future__ import annotations

import logging

from . import _host

#: The policy's logger. Any other logger of ``logging.getLogger`` writes to the same log.
log = logging.getLogger("policy")


class Handler(logging.Handler):
    """Writes records to the gateway's log. The gateway adds the time, the request's id and the policy's digest."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _host.current().log(level_of(record.levelno), self.format(record))
        except Exception:  # as the handlers of the standard library do
            self.handleError(record)


def level_of(number: int) -> str:
    """The gateway's name for a level of ``logging``."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


def install() -> None:
    """Adds the handler to the root logger, unless the policy configured logging itself."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Handler())
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
