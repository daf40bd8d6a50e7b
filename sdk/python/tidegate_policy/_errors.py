"""The exceptions of the host functions. A policy need not catch them: ``_decide`` converts each into a response."""

from __future__ import annotations


class Denied(Exception):
    """The operator did not allow look-ups of this key (``policy.lookup.prefixes``). Uncaught, it becomes a 503."""

    reason = "look-up denied"


class Unavailable(Exception):
    """The store, or the keys to verify a token, were not available. Uncaught, it becomes a 503."""

    def __init__(self, detail: str = "", *, reason: str = "look-up unavailable") -> None:
        super().__init__(detail)
        self.reason = reason


class InvalidToken(Exception):
    """The token is invalid. Uncaught, it becomes a 401.

    ``kind`` is ``missing``, ``malformed``, ``untrusted`` (signature, algorithm or key), ``expired`` or ``claims``
    (issuer, audience or not-before). ``detail`` has more details for the log.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class NoGateway(RuntimeError):
    """A host function was called where there is no gateway."""
