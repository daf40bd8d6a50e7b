"""A gateway for tests of policies, which run on your own Python.

::

    gateway = TestGateway({"session:alice": '{"id":"alice"}', "team:red:members": {"alice"}})
    decision = gateway.decide(authorize, "team-red", cookies={"session": "alice"})
    assert decision.allowed and decision.subject == "alice"
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

from . import _host
from ._decide import Authorize, decide
from ._errors import Denied, InvalidToken, Unavailable
from ._request import Request
from ._responses import Allow

#: A value in the store: a string, a set or a hash.
Stored = str | bytes | set[str] | list[str] | dict[str, str]


@dataclass
class Decision:
    """A policy's decision, with the options and log lines that it passed to the gateway."""

    allowed: bool
    subject: str | None = None
    channels: list[str] | None = None
    expires_at: int | None = None
    #: Only for a rejection.
    status: int | None = None
    #: Only for a rejection.
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    reason: str | None = None
    replay_since: int | None = None
    #: Seconds, and names of the headers that the cached answer varies by.
    cache_for: tuple[int, list[str]] | None = None
    cache_any_address: bool = False
    #: Pairs of level and message.
    log: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The body of a rejection as text."""
        return self.body.decode()


class TestGateway:
    """A gateway for tests, with a store, settings, tokens and a clock.

    ``store`` has strings, sets (a ``set`` or a ``list``) and hashes (a ``dict``). ``prefixes`` are the prefixes of keys that may
    be looked up, by default the part before the first ``:`` of each key in the store. ``store_unavailable`` makes all look-ups
    fail. ``tokens`` maps a token to its claims, or to the ``InvalidToken`` that it raises; any other token is untrusted.
    ``now`` is in ms, by default the real time. All of them are attributes that can be changed later; ``now`` is the attribute ``time``.
    ``lookups`` has the keys that were looked up.
    """

    #: pytest does not collect this class, whose name begins with ``Test``.
    __test__ = False

    def __init__(
        self,
        store: Mapping[str, Stored] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        tokens: Mapping[str, dict[str, Any] | InvalidToken] | None = None,
        prefixes: Iterable[str] | None = None,
        now: int | None = None,
        store_unavailable: bool = False,
    ) -> None:
        self.store = dict(store or {})
        self.settings = dict(settings or {})
        self.tokens = dict(tokens or {})
        self.prefixes = None if prefixes is None else list(prefixes)
        self.time = now
        self.store_unavailable = store_unavailable
        self.lookups: list[str] = []
        self._decision = Decision(allowed=False)
        self._before: list[_host.Host] = []

    def decide(
        self,
        authorize: Authorize,
        *channels: str,
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str | bytes]] | None = None,
        bearer: str | None = None,
        method: str = "GET",
        scheme: str = "https",
        authority: str = "app.example",
        path: str | None = None,
        client_address: str = "192.0.2.1",
    ) -> Decision:
        """Evaluates the policy for ``channels`` (``default`` if there are none), as the gateway does."""
        requested = list(channels) or ["default"]
        if path is None:
            path = f"/api/realtime?{urlencode([('channel', channel) for channel in requested])}"
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        raw = [(name.lower(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
        if cookies:
            raw.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()))
        if bearer is not None:
            raw.append(("authorization", f"Bearer {bearer}".encode()))
        self._decision = decision = Decision(allowed=False)
        with self:
            answer = decide(authorize, Request(method, scheme, authority, path, raw, client_address), requested)
        decision.headers = answer.headers
        if isinstance(answer, Allow):
            decision.allowed = True
            decision.subject, decision.channels, decision.expires_at = (
                answer.subject,
                answer.channels,
                answer.expires_at,
            )
        else:
            decision.status, decision.body = answer.status, answer.body
        return decision

    def __enter__(self) -> Self:
        """Makes this the current gateway, to test parts of a policy that call host functions."""
        self._before.append(_host.set_current(self))
        return self

    def __exit__(self, *_: object) -> None:
        _host.set_current(self._before.pop())

    # The host functions, as in ``_host.Host``.

    def now(self) -> int:
        return int(time.time() * 1000) if self.time is None else self.time

    def request_id(self) -> str:
        return "test"

    def action(self) -> str:
        return "stream"

    def log(self, level: str, message: str) -> None:
        self._decision.log.append((level, message))

    def reason(self, text: str) -> None:
        self._decision.reason = text

    def replay_since(self, time: int) -> None:
        self._decision.replay_since = time

    def cache_for(self, seconds: int, vary: list[str]) -> None:
        self._decision.cache_for = (seconds, vary)

    def cache_any_address(self) -> None:
        self._decision.cache_any_address = True

    def get(self, key: str) -> bytes | None:
        value = self._look_up(key, (str, bytes))
        return value.encode() if isinstance(value, str) else value

    def hash_get(self, key: str, field: str) -> bytes | None:
        table = self._look_up(key, (dict,)) or {}
        value = table.get(field)
        return value.encode() if isinstance(value, str) else value

    def set_contains(self, key: str, member: str) -> bool:
        return member in (self._look_up(key, (set, frozenset, list)) or ())

    def verify(self, token: str) -> str:
        claims = self.tokens.get(token, InvalidToken("untrusted"))
        if isinstance(claims, Exception):
            raise claims
        return json.dumps(claims)

    def verify_with(self, profile: str, token: str) -> str:
        return self.verify(token)

    def setting(self, name: str) -> str | None:
        return self.settings.get(name)

    def _look_up(self, key: str, kinds: tuple[type, ...]) -> Any:
        prefixes = self.prefixes
        if prefixes is None:
            prefixes = [f"{name.partition(':')[0]}:" for name in self.store if ":" in name]
        if not any(key.startswith(prefix) for prefix in prefixes):
            raise Denied(key)
        self.lookups.append(key)
        if self.store_unavailable:
            raise Unavailable("the store does not answer")
        value = self.store.get(key)
        if value is not None and not isinstance(value, kinds):
            raise Unavailable("the key holds another type of value")
        return value
