"""What the gateway's services may fail with. A policy that catches none of them still answers well: see ``_decide``."""

from __future__ import annotations


class Denied(Exception):
    """The operator allowed no look-up of this key (``policy.lookup.prefixes``). Uncaught, it is a 503."""

    reason = "look-up denied"


class Unavailable(Exception):
    """The store, or the keys of a token, could not be had. It says nothing about the client. Uncaught, it is a 503."""

    def __init__(self, detail: str = "", *, reason: str = "look-up unavailable") -> None:
        super().__init__(detail)
        self.reason = reason


class InvalidToken(Exception):
    """The token does not hold. Uncaught, it is a 401.

    ``kind`` is ``missing``, ``malformed``, ``untrusted`` (signature, algorithm or key), ``expired`` or ``claims``
    (issuer, audience or not-before), and ``detail`` is more about it, for the log.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class NoGateway(RuntimeError):
    """Something of the gateway was asked for where there is none."""
