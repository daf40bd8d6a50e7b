"""The exports and imports of a component.

This module is loaded only at build, where the modules ``wit_world`` and ``componentize_py_types`` exist. Its top level runs once,
and every decision starts from the memory at the end of the build. Work that is the same for all decisions is done at build; work
that must differ between instances is done in ``initialize``.
"""

from __future__ import annotations

import gc
import os
import random

from componentize_py_types import Err
from wit_world.imports import answer, context, lookup, settings, tokens, types

from . import _host, _platform
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
    """The host functions of ``wit/policy.wit``."""

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
        # Only the key's prefix, because the rest may be a session id.
        return Denied(f"the operator does not allow look-ups of {key.partition(':')[0]}:…")
    return Unavailable(error.value)


def _token_error(error: tokens.Error) -> Exception:
    if isinstance(error, tokens.Error_Unavailable):
        return Unavailable(error.value, reason="keys of the token unavailable")
    if isinstance(error, tokens.Error_Claims):
        return InvalidToken("claims", error.value)
    return InvalidToken(type(error).__name__.removeprefix("Error_").lower())


def _text(text: str) -> str:
    # A Python string may contain lone surrogates, which are not valid text for the gateway.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _lower_headers(headers: list[tuple[str, str]]) -> list[types.Header]:
    return [types.Header(name, value.encode()) for name, value in headers]


def _answer(request: types.Request, channels: list[str], authorize, root: str) -> types.Grant:
    """Converts the request, evaluates the policy, and converts its answer."""
    headers = [(header.name, header.value) for header in request.headers]
    converted = Request(
        request.method, request.scheme, request.authority, request.path_with_query, headers, request.client_address
    )
    result = decide(authorize, converted, channels, root)
    if isinstance(result, Allow):
        return types.Grant(result.subject, result.channels, result.expires_at, _lower_headers(result.headers))
    raise Err(types.Rejection(result.status, _lower_headers(result.headers), result.body))


def make(module: str, root: str) -> tuple[type, type]:
    """Loads the policy ``module`` from the folder ``root``, and returns the classes that componentize-py exports."""
    _platform.install()
    environment = Environment(root)
    os.environ = environment  # type: ignore[assignment]
    authorize = load(module, root)
    generators = [value for value in gc.get_objects() if type(value) is random.Random]
    is_initialized = False

    def initialize() -> None:
        """Prepares the state that every instance has for itself."""
        nonlocal is_initialized
        is_initialized = True
        _host.set_current(gateway)
        environment.open()
        for generator in generators:
            generator.seed()

    class Authorizer:
        def authorize(self, request: types.Request, channels: list[str]) -> types.Grant:
            if not is_initialized:
                initialize()
            return _answer(request, channels, authorize, root)

    class Preparation:
        def prepare(self) -> None:
            if not is_initialized:
                initialize()
            _warm_up()
            # These exercise the bindings without an effect: look-ups are unavailable before a request.
            context.now()
            settings.get("")
            for look_up in (gateway.get, lambda key: gateway.set_contains(key, key)):
                try:
                    look_up("")
                except (Denied, Unavailable):
                    pass

    gateway = Gateway()
    for _ in range(20):  # enough for the interpreter to specialise the SDK's code
        _warm_up()
    # The collector skips frozen objects and does not touch their memory.
    gc.collect()
    gc.freeze()
    return Authorizer, Preparation


def _warm_up() -> None:
    """Evaluates a policy of the SDK, never the author's, for an invented request, and drops its answer."""
    before = _host.set_current(_WarmUpHost())
    try:
        for path in ("/?channel=a&last_ack_a=%28", "/?"):
            headers = [
                types.Header("cookie", b"a=b; c=d"),
                types.Header("authorization", b"Bearer a"),
                types.Header("x", b"\xff"),
            ]
            request = types.Request("GET", "https", "localhost", path, headers, "::1")
            try:
                _answer(request, ["a"], _warm_up_policy, "")
            except Err:
                pass
    finally:
        _host.set_current(before)


def _warm_up_policy(request: Request, channels: list[str]) -> Allow:
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


class _WarmUpHost(Gateway):
    """Host functions that do not call the gateway."""

    now = staticmethod(lambda: 0)
    setting = staticmethod(lambda name: None)

    def reason(self, text: str) -> None:
        _text(text)

    def get(self, key: str) -> bytes | None:
        return b'{"id":"a","role":["b",1.5,true]}'

    def set_contains(self, key: str, member: str) -> bool:
        return True
