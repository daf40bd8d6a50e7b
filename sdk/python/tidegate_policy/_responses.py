"""The answers of a policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime

#: Headers as a mapping, or as pairs if a name is repeated.
HeadersInit = Mapping[str, str] | Iterable[tuple[str, str]]


def milliseconds(time: int | datetime) -> int:
    """A time as ms since 1970."""
    if isinstance(time, int) and not isinstance(time, bool):
        return time
    # Detected by its attribute, so that the module datetime is loaded only by policies that use it.
    zone = getattr(time, "tzinfo", time)
    if zone is time:
        raise TypeError(f"a time must be milliseconds since 1970 (int) or a datetime, not {type(time).__name__}")
    if zone is None:
        raise ValueError(
            "a datetime without a time zone is ambiguous: use datetime.now(timezone.utc)"
        )
    return int(time.timestamp() * 1000)


def header_list(headers: HeadersInit | None) -> list[tuple[str, str]]:
    """Headers as pairs, with names in lower case."""
    if headers is None:
        return []
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name.lower(), value) for name, value in pairs]


class Allow:
    """Admits the client.

    ``subject`` identifies the user for logs, limits and revocation; other clients never see it. ``channels`` are those
    of the requested channels that are granted, by default all. Before ``expires_at`` (ms since 1970, or a ``datetime`` with a time zone)
    the stream is rotated and the policy decides again. ``headers`` are added to the stream's response: ``set-cookie`` and
    ``x-…``.
    """

    __slots__ = ("subject", "channels", "expires_at", "headers")

    def __init__(
        self,
        subject: str | None = None,
        *,
        channels: Iterable[str] | None = None,
        expires_at: int | datetime | None = None,
        headers: HeadersInit | None = None,
    ) -> None:
        if isinstance(channels, str):
            raise TypeError("channels must be a list of names, not a single name")
        self.subject = subject
        self.channels = None if channels is None else list(channels)
        self.expires_at = None if expires_at is None else milliseconds(expires_at)
        self.headers = header_list(headers)

    def __repr__(self) -> str:
        return f"Allow(subject={self.subject!r}, channels={self.channels!r}, expires_at={self.expires_at!r})"


class Response:
    """Rejects the client with this response. Text is ``text/plain`` unless the headers have a ``content-type``."""

    __slots__ = ("status", "body", "headers")

    def __init__(self, body: str | bytes = b"", status: int = 200, headers: HeadersInit | None = None) -> None:
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of a response must be a number from 200 to 599, not {status!r}")
        pairs = header_list(headers)
        if isinstance(body, str):
            if not any(name == "content-type" for name, _ in pairs):
                pairs.append(("content-type", "text/plain" if body.isascii() else "text/plain; charset=utf-8"))
            body = body.encode()
        self.status = status
        self.body = body
        self.headers = pairs

    @classmethod
    def json(cls, data: Any, status: int = 200, headers: HeadersInit | None = None) -> Response:
        """A response with ``data`` as JSON."""
        pairs = header_list(headers)
        if not any(name == "content-type" for name, _ in pairs):
            pairs.append(("content-type", "application/json"))
        return cls(json.dumps(data).encode(), status, pairs)

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class Reject(Exception):
    """Rejects the client, from any depth of the call stack: ``raise Reject(403, "Not a team member")``.

    ``reason`` is for the decision log and is not sent to the client.
    """

    def __init__(
        self,
        status: int,
        body: str | bytes = "",
        headers: HeadersInit | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(f"{status}")
        self.response = Response(body, status, headers)
        self.reason = reason


def unauthorized(body: str | bytes = "Unauthorized", *, reason: str | None = None) -> NoReturn:
    """Rejects the client with a 401. It raises, so a forgotten ``raise`` or ``return`` cannot admit the client."""
    raise Reject(401, body, reason=reason)


def forbidden(body: str | bytes = "Forbidden", *, reason: str | None = None) -> NoReturn:
    """Rejects the client with a 403. It raises, so a forgotten ``raise`` or ``return`` cannot admit the client."""
    raise Reject(403, body, reason=reason)
