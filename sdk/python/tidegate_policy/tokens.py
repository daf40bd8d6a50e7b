"""JSON Web Tokens, checked by the gateway against the operator's profiles."""

from __future__ import annotations

import json
from typing import Any

from . import _world
from ._errors import InvalidToken


class Claims(dict[str, Any]):
    """A token's claims."""

    @property
    def subject(self) -> str | None:
        """``sub``, if it is text."""
        subject = self.get("sub")
        return subject if isinstance(subject, str) else None

    @property
    def expires_at(self) -> int | None:
        """``exp`` in ms, as ``Allow`` takes it (the claim itself is in seconds)."""
        expiry = self.get("exp")
        return int(expiry * 1000) if isinstance(expiry, (int, float)) else None


def verify(token: str | None, profile: str | None = None) -> Claims:
    """The token's claims, if it holds for the profile of its issuer, or for the one that is named.

    Raises ``InvalidToken`` (uncaught: a 401; also for no token at all) and ``Unavailable`` (uncaught: a 503).
    """
    if not token:
        raise InvalidToken("missing")
    world = _world.current()
    _world.text(token, "a token")
    if profile is None:
        return Claims(json.loads(world.verify(token)))
    return Claims(json.loads(world.verify_with(_world.text(profile, "a profile"), token)))
