"""Read-only look-ups in the gateway's store, for keys with a prefix that the operator allowed.

They raise ``Denied`` and ``Unavailable``, which a policy need not catch: uncaught they become a 503 ``Try again``.
"""

from __future__ import annotations

import json
from typing import Any

from . import _host


def get(key: str) -> str | None:
    """The string at ``key`` as text. Raises ``UnicodeDecodeError`` (a ``ValueError``) if it is not UTF-8."""
    value = _host.current().get(_host.text(key, "a key"))
    return None if value is None else value.decode()


def get_bytes(key: str) -> bytes | None:
    """The string at ``key`` as bytes."""
    return _host.current().get(_host.text(key, "a key"))


def get_json(key: str) -> Any:
    """The string at ``key`` decoded from JSON, or ``None`` if there is none. Raises ``ValueError`` if it is not JSON."""
    value = _host.current().get(_host.text(key, "a key"))
    return None if value is None else _json(value.decode())


def hget(key: str, field: str) -> str | None:
    """A field of the hash at ``key``, as text."""
    value = _host.current().hash_get(_host.text(key, "a key"), _host.text(field, "a field"))
    return None if value is None else value.decode()


def hget_bytes(key: str, field: str) -> bytes | None:
    """A field of the hash at ``key`` as bytes."""
    return _host.current().hash_get(_host.text(key, "a key"), _host.text(field, "a field"))


def sismember(key: str, member: str) -> bool:
    """Whether the set at ``key`` contains ``member``."""
    return _host.current().set_contains(_host.text(key, "a key"), _host.text(member, "a member"))


def _json(text: str) -> Any:
    """Decodes strict JSON. Python's own decoder also accepts NaN, numbers out of range and lone surrogates."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return number
