"""Options of the answer that the policy is about to return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import _host
from ._responses import milliseconds

if TYPE_CHECKING:
    from datetime import datetime


def reason(text: str) -> None:
    """The reason for the decision, for the decision log and the playground. It is never sent to the client.

    Do not put credentials into it.
    """
    _host.current().reason(str(text))


def replay_since(time: int | datetime) -> None:
    """Events older than this time (ms since 1970, or a ``datetime`` with a time zone) are not replayed to the client."""
    _host.current().replay_since(_host.count(milliseconds(time), 64, "a time"))


def cache_for(seconds: int, vary: Iterable[str], *, any_address: bool = False) -> None:
    """Lets the gateway reuse this answer for the given time.

    The cached answer is valid for requests with the same method, URL, client address and values of the headers in ``vary``.
    Name every header that the decision depends on (``cookie``, ``authorization``). With ``any_address`` the address is ignored.
    """
    if isinstance(vary, str):
        vary = (vary,)
    host = _host.current()
    names = [_host.text(name, "a header's name") for name in vary]
    host.cache_for(_host.count(seconds, 32, "a number of seconds"), names)
    if any_address:
        host.cache_any_address()
