"""More that an answer may say, before it is returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import _world
from ._responses import milliseconds

if TYPE_CHECKING:
    from datetime import datetime


def reason(text: str) -> None:
    """Why, for the decision log and the playground. Never sent to the client; never write a credential here."""
    _world.current().reason(str(text))


def replay_since(time: int | datetime) -> None:
    """Nothing older than this (ms since 1970, or a ``datetime`` with a time zone) is replayed to the client."""
    _world.current().replay_since(_world.count(milliseconds(time), 64, "a time"))


def cache_for(seconds: int, vary: Iterable[str], *, any_address: bool = False) -> None:
    """This answer may be given again for so many seconds without asking.

    It holds for requests of the same method, URL and client address whose headers named in ``vary`` are the same too: name
    every header that the decision read (``cookie``, ``authorization``). With ``any_address`` the address does not matter.
    """
    if isinstance(vary, str):
        vary = (vary,)
    world = _world.current()
    names = [_world.text(name, "a header's name") for name in vary]
    world.cache_for(_world.count(seconds, 32, "a number of seconds"), names)
    if any_address:
        world.cache_any_address()
