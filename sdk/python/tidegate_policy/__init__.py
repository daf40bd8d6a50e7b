"""Policies for Tidegate in Python.

A policy is one function in ``app.py``::

    from tidegate_policy import Request, lookup, unauthorized

    def authorize(request: Request, channels: list[str]):
        if lookup.get(f"session:{request.cookies.get('session', '')}") is None:
            unauthorized()

It admits the client by returning ``None`` or an ``Allow``. It rejects the client with ``unauthorized()``, ``forbidden("…")``,
``raise Reject(status, "…")`` or by returning a ``Response``. Any other exception becomes a 500.
"""

from . import answer, context, lookup, settings, tokens
from ._errors import Denied, InvalidToken, Unavailable
from ._logs import log
from ._request import Cookies, Headers, Query, Request
from ._responses import Allow, Reject, Response, forbidden, unauthorized

__all__ = [
    "Allow",
    "Cookies",
    "Denied",
    "Headers",
    "InvalidToken",
    "Query",
    "Reject",
    "Request",
    "Response",
    "Unavailable",
    "answer",
    "context",
    "forbidden",
    "log",
    "lookup",
    "settings",
    "tokens",
    "unauthorized",
]
