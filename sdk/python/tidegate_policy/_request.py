"""The client's request. Headers, cookies and query are parsed on first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

# Whitespace as HTTP defines it; str.strip() without an argument removes more.
_WHITESPACE = " \t\n\x0c\r"


class _Multi(Mapping[str, str]):
    """Names with one or more values. As a mapping it returns the first value."""

    __slots__ = ("_values",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def get_all(self, name: str) -> list[str]:
        """All values with this name, in order."""
        return list(self._values.get(name, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # The values may be credentials, and a repr may be logged.
        return f"{type(self).__name__}({', '.join(self._values)})"


class Query(_Multi):
    """The query's parameters, parsed as browsers do: ``+`` is a space, and invalid UTF-8 becomes U+FFFD."""

    __slots__ = ()


class Cookies(_Multi):
    """The cookies by name, undecoded: quotes and percent signs are kept. The first cookie with a name counts."""

    __slots__ = ()


class Headers(_Multi):
    """Headers by case-insensitive name. ``raw`` has the bytes; invalid UTF-8 is U+FFFD in the text."""

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[str, bytes]]) -> None:
        super().__init__([(name, value.decode("utf-8", "replace")) for name, value in raw])
        self.raw = raw

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def get_all(self, name: str) -> list[str]:
        return super().get_all(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values


class Request:
    """A client's HTTP request to read channels."""

    __slots__ = (
        "method",
        "scheme",
        "authority",
        "path_with_query",
        "client_address",
        "_raw",
        "_headers",
        "_cookies",
        "_query",
    )

    method: str
    #: ``http`` or ``https``, as the client sees it.
    scheme: str
    #: Host and port.
    authority: str
    #: Path and query as sent.
    path_with_query: str
    #: The client's IP address; behind a trusted proxy, the one that the proxy names.
    #: Empty if it is unknown, because the proxy names none.
    client_address: str

    def __init__(
        self,
        method: str,
        scheme: str,
        authority: str,
        path_with_query: str,
        headers: list[tuple[str, bytes]],
        client_address: str,
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path_with_query = path_with_query
        self.client_address = client_address
        self._raw = headers
        self._headers: Headers | None = None
        self._cookies: Cookies | None = None
        self._query: Query | None = None

    @property
    def url(self) -> str:
        """The whole URL, as the client sees it."""
        return f"{self.scheme}://{self.authority}{self.path_with_query}"

    @property
    def path(self) -> str:
        """The path as sent, without the query."""
        return self.path_with_query.partition("?")[0]

    @property
    def headers(self) -> Headers:
        """The headers. Repeated headers are joined by ``", "``; ``get_all`` returns them separately."""
        if self._headers is None:
            self._headers = Headers(self._raw)
        return self._headers

    @property
    def cookies(self) -> Cookies:
        """The cookies of all ``cookie`` headers, by name."""
        if self._cookies is None:
            self._cookies = Cookies([pair for name, value in self._raw if name == "cookie" for pair in _cookies(value)])
        return self._cookies

    @property
    def query(self) -> Query:
        """The query's parameters; ``query.get_all("channel")`` returns the channels as requested."""
        if self._query is None:
            text = self.path_with_query.partition("?")[2]
            self._query = Query(parse_qsl(text, keep_blank_values=True, errors="replace"))
        return self._query

    @property
    def bearer(self) -> str | None:
        """The token of ``Authorization: Bearer …``."""
        for name, value in self._raw:
            if name == "authorization":
                scheme, _, token = value.decode("utf-8", "replace").strip(_WHITESPACE).partition(" ")
                return (token.strip(_WHITESPACE) or None) if scheme.lower() == "bearer" else None
        return None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.scheme}://{self.authority}{self.path}>"


def _cookies(header: bytes) -> Iterator[tuple[str, str]]:
    """The ``name=value`` pairs. Other parts are skipped, as browsers' and servers' parsers do."""
    for pair in header.decode("utf-8", "replace").split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            yield name.strip(_WHITESPACE), value.strip(_WHITESPACE)
