"""The SDK's half of a component: what is exported to the gateway, and what is imported from it.

Loaded only while a component is built and within it; the modules ``wit_world`` and ``componentize_py_types`` are there only
then. What stands at the top level of this file, as of any, runs once, at build; the component starts from the memory that is
left then. So whatever is the same for all decisions is done here, and what must not be the same is done in ``_wake``.
"""

from __future__ import annotations

import gc
import os
import random

from componentize_py_types import Err
from wit_world.imports import answer, context, lookup, settings, tokens, types

from . import _world
from ._build import Environment, load
from ._decide import decide
from ._errors import Denied, InvalidToken, Unavailable
from ._request import Request
from ._responses import Allow

_LEVELS = {
    "debug": context.Level.DEBUG,
    "info": context.Level.INFO,
    "warn": context.Level.WARN,
    "error": context.Level.ERROR,
}


class Gateway:
    """The world that ``wit/policy.wit`` describes."""

    now = staticmethod(context.now)
    request_id = staticmethod(context.request_id)
    action = staticmethod(context.action)
    replay_since = staticmethod(answer.replay_since)
    cache_for = staticmethod(answer.cache_for)
    cache_any_address = staticmethod(answer.cache_any_address)
    setting = staticmethod(settings.get)

    def log(self, level: str, message: str) -> None:
        context.log(_LEVELS[level], _text(message))

    def reason(self, text: str) -> None:
        answer.reason(_text(text))

    def get(self, key: str) -> bytes | None:
        try:
            return lookup.get(key)
        except Err as error:
            raise _lookup_error(error.value, key) from None

    def hash_get(self, key: str, field: str) -> bytes | None:
        try:
            return lookup.hash_get(key, field)
        except Err as error:
            raise _lookup_error(error.value, key) from None

    def set_contains(self, key: str, member: str) -> bool:
        try:
            return lookup.set_contains(key, member)
        except Err as error:
            raise _lookup_error(error.value, key) from None

    def verify(self, token: str) -> str:
        try:
            return tokens.verify(token)
        except Err as error:
            raise _token_error(error.value) from None

    def verify_with(self, profile: str, token: str) -> str:
        try:
            return tokens.verify_with(profile, token)
        except Err as error:
            raise _token_error(error.value) from None


def _lookup_error(error: lookup.Error, key: str) -> Exception:
    if isinstance(error, lookup.Error_Denied):
        # The key's prefix says what to allow; the rest of it may be a session id.
        return Denied(f"the operator allows no look-up of {key.partition(':')[0]}:…")
    return Unavailable(error.value)


def _token_error(error: tokens.Error) -> Exception:
    if isinstance(error, tokens.Error_Unavailable):
        return Unavailable(error.value, reason="keys of the token unavailable")
    if isinstance(error, tokens.Error_Claims):
        return InvalidToken("claims", error.value)
    return InvalidToken(type(error).__name__.removeprefix("Error_").lower())


def _text(text: str) -> str:
    # Half surrogates are in Python's strings at times, and in no other's.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _lower_headers(headers: list[tuple[str, str]]) -> list[types.Header]:
    return [types.Header(name, value.encode()) for name, value in headers]


def _answer(request: types.Request, channels: list[str], authorize, root: str) -> types.Grant:
    """From the interface's request to its answer."""
    headers = [(header.name, header.value) for header in request.headers]
    asked = Request(
        request.method, request.scheme, request.authority, request.path_with_query, headers, request.client_address
    )
    said = decide(authorize, asked, channels, root)
    if isinstance(said, Allow):
        return types.Grant(said.subject, said.channels, said.expires_at, _lower_headers(said.headers))
    raise Err(types.Rejection(said.status, _lower_headers(said.headers), said.body))


def make(module: str, root: str) -> tuple[type, type]:
    """Loads the policy ``module`` from the folder ``root``: the classes that componentize-py exports."""
    environment = Environment(root)
    os.environ = environment  # type: ignore[assignment]
    authorize = load(module, root)
    sources_of_chance = [thing for thing in gc.get_objects() if type(thing) is random.Random]
    is_awake = False

    def wake() -> None:
        """What has to be fresh in every instance."""
        nonlocal is_awake
        is_awake = True
        _world.enter(gateway)
        environment.open()
        for source in sources_of_chance:
            source.seed()

    class Authorizer:
        def authorize(self, request: types.Request, channels: list[str]) -> types.Grant:
            if not is_awake:
                wake()
            return _answer(request, channels, authorize, root)

    class Preparation:
        def prepare(self) -> None:
            if not is_awake:
                wake()
            _rehearse()
            # These go through the glue to the gateway and back, and change nothing: no look-up is answered yet.
            context.now()
            settings.get("")
            for look_up in (gateway.get, lambda key: gateway.set_contains(key, key)):
                try:
                    look_up("")
                except (Denied, Unavailable):
                    pass

    gateway = Gateway()
    for _ in range(20):  # more than it takes until the interpreter has specialised the SDK's code
        _rehearse()
    # What is there now stays: the collector need not look at it, and so does not touch its memory.
    gc.collect()
    gc.freeze()
    return Authorizer, Preparation


def _rehearse() -> None:
    """Decides about a request of nobody by a policy of our own, never by the author's: its answer goes nowhere."""
    before = _world.enter(_Stage())
    try:
        for path in ("/?channel=a&last_ack_a=%28", "/?"):
            headers = [
                types.Header("cookie", b"a=b; c=d"),
                types.Header("authorization", b"Bearer a"),
                types.Header("x", b"\xff"),
            ]
            request = types.Request("GET", "https", "localhost", path, headers, "::1")
            try:
                _answer(request, ["a"], _rehearsal, "")
            except Err:
                pass
    finally:
        _world.enter(before)


def _rehearsal(request: Request, channels: list[str]) -> Allow:
    from . import answer, context, lookup, settings

    for use in (request.cookies.get, request.headers.get, settings.get, lookup.get_json):
        use("a")
    lookup.sismember(request.url, request.bearer or "")
    context.now()
    answer.reason(f"{channels[0]}: {len(channels)}")
    if not request.query:
        from ._responses import forbidden

        forbidden("a")
    return Allow("a", channels=channels, headers={"x-a": "b"})


class _Stage(Gateway):
    """A gateway that is not there."""

    now = staticmethod(lambda: 0)
    setting = staticmethod(lambda name: None)

    def reason(self, text: str) -> None:
        _text(text)

    def get(self, key: str) -> bytes | None:
        return b'{"id":"a","role":["b",1.5,true]}'

    def set_contains(self, key: str, member: str) -> bool:
        return True
