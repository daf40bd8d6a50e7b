"""JSON Web Tokens, verified by the gateway against the operator's profiles."""

from __future__ import annotations

import json
from typing import Any

from . import _host
from ._errors import InvalidToken


class Claims(dict[str, Any]):
    """A token's claims."""

    @property
    def subject(self) -> str | None:
        """``sub``, if it is a string."""
        subject = self.get("sub")
        return subject if isinstance(subject, str) else None

    @property
    def expires_at(self) -> int | None:
        """``exp`` in ms, as ``Allow`` takes it (the claim itself is in seconds)."""
        expiry = self.get("exp")
        return int(expiry * 1000) if isinstance(expiry, (int, float)) else None


def verify(token: str | None, profile: str | None = None) -> Claims:
    """Verifies a token with the profile of its issuer, or with ``profile``, and returns its claims.

    Raises ``InvalidToken``, also if there is no token (uncaught: a 401), and ``Unavailable`` (uncaught: a 503).
    """
    if not token:
        raise InvalidToken("missing")
    host = _host.current()
    _host.text(token, "a token")
    if profile is None:
        return Claims(json.loads(host.verify(token)))
    return Claims(json.loads(host.verify_with(_host.text(profile, "a profile"), token)))
