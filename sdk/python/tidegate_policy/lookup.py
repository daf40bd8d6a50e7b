"""Look-ups in the store that the events come from: read only, and of keys whose prefixes the operator allowed.

All of them raise ``Denied`` and ``Unavailable``, which a policy need not catch: uncaught they are a 503, ``Try again``.
"""

from __future__ import annotations

import json
from typing import Any

from . import _world


def get(key: str) -> str | None:
    """The string at ``key``, as text; ``UnicodeDecodeError`` (a ``ValueError``) if it is none."""
    value = _world.current().get(_world.text(key, "a key"))
    return None if value is None else value.decode()


def get_bytes(key: str) -> bytes | None:
    """The string at ``key``."""
    return _world.current().get(_world.text(key, "a key"))


def get_json(key: str) -> Any:
    """What the string at ``key`` says as JSON, ``None`` without one; ``ValueError`` if it is no JSON."""
    value = _world.current().get(_world.text(key, "a key"))
    return None if value is None else _json(value.decode())


def hget(key: str, field: str) -> str | None:
    """A field of the hash at ``key``, as text."""
    value = _world.current().hash_get(_world.text(key, "a key"), _world.text(field, "a field"))
    return None if value is None else value.decode()


def hget_bytes(key: str, field: str) -> bytes | None:
    """A field of the hash at ``key``."""
    return _world.current().hash_get(_world.text(key, "a key"), _world.text(field, "a field"))


def sismember(key: str, member: str) -> bool:
    """Whether the set at ``key`` holds ``member``."""
    return _world.current().set_contains(_world.text(key, "a key"), _world.text(member, "a member"))


def _json(text: str) -> Any:
    """JSON and no more: Python's own reader also takes NaN, numbers beyond all bounds and half surrogates."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number out of range")
    return number
