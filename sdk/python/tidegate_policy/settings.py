"""The operator's ``[policy.settings]``: plain values and, by reference, secrets.

Read them in each decision. The top level of a policy's modules runs at build, where there are no settings.
"""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any, TypeVar, get_args, get_type_hints, overload

from . import _host

T = TypeVar("T")


@overload
def get(name: str) -> str | None: ...
@overload
def get(name: str, default: str) -> str: ...
def get(name: str, default: str | None = None) -> str | None:
    """The setting with this name."""
    value = _host.current().setting(_host.text(name, "a setting's name"))
    return default if value is None else value


def load(cls: type[T]) -> T:
    """Loads the settings into an object of ``cls``.

    ``cls`` is a class with annotated fields and a constructor that takes them by name, such as a dataclass. Fields may be
    ``str``, ``int``, ``float``, ``bool`` (``true``/``false``), ``list[str]`` (comma-separated), or one of these ``| None``.
    A missing setting leaves the field's default::

        @dataclass
        class Config:
            audience: str
            max_channels: int = 10

        config = settings.load(Config)
    """
    kinds = get_type_hints(cls)
    values = {}
    for name, parameter in signature(cls).parameters.items():
        kind = kinds.get(name, str)
        text = get(name)
        if text is not None:
            values[name] = _parse(name, kind, text)
        elif parameter.default is not Parameter.empty:
            continue
        elif type(None) in get_args(kind):
            values[name] = None
        else:
            raise ValueError(f"the setting {name} is missing: add it to [policy.settings]")
    return cls(**values)


def _parse(name: str, kind: Any, text: str) -> Any:
    options = [option for option in get_args(kind) if option is not type(None)]
    if type(None) in get_args(kind) and len(options) == 1:
        kind = options[0]
    parser = _PARSERS.get(kind)
    if parser is None:
        raise TypeError(f"the setting {name} cannot be a {kind}: supported are str, int, float, bool and list[str]")
    try:
        return parser(text)
    except (ValueError, KeyError):
        # Without the value, which may be a secret.
        raise ValueError(f"the setting {name} is not a valid {getattr(kind, '__name__', kind)}") from None


_PARSERS = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.strip().lower()],
    list[str]: lambda text: [part.strip() for part in text.split(",") if part.strip()],
}
