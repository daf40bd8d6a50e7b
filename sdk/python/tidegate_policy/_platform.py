"""What a component lacks of Python's platform, so that libraries that only import it work.

``_stand_ins`` has the modules that are not compiled into a component's Python; what needs them raises their own exceptions. The
functions here replace those whose state at the end of the build is invalid in a decision, where it would be a trap.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location

#: The folder with the stand-ins for modules.
STAND_INS = os.path.join(os.path.dirname(__file__), "_stand_ins")

#: Modules of the standard library that are there but cannot be loaded, with the file that replaces them.
REPLACED = {
    "ctypes": "ctypes/__init__.py",
    "multiprocessing.popen_fork": "_popen.py",
    "multiprocessing.popen_forkserver": "_popen.py",
    "multiprocessing.popen_spawn_posix": "_popen.py",
}

NO_NETWORK = "a policy has no network"


def install() -> None:
    """Makes the stand-ins importable and replaces functions. Only for a component, before the policy's modules are loaded."""
    # At the end, so that modules of the policy and its packages come first.
    sys.path.append(STAND_INS)
    sys.meta_path.insert(0, _Replacements)
    _name_compiled_modules()
    _replace_network()
    os.scandir = scandir
    if not hasattr(os, "pipe"):
        os.pipe = _no_pipe
    if not hasattr(hashlib, "pbkdf2_hmac"):
        hashlib.pbkdf2_hmac = pbkdf2_hmac


class _Replacements(MetaPathFinder):
    """Finds the stand-ins for modules that the standard library has."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = REPLACED.get(name)
        return file and spec_from_file_location(name, os.path.join(STAND_INS, file))


def _name_compiled_modules() -> None:
    """Adds the module's name to the error of one that is compiled, which this Python leaves out."""
    create = ExtensionFileLoader.create_module

    def create_module(loader: ExtensionFileLoader, spec: ModuleSpec) -> object:
        try:
            return create(loader, spec)
        except ImportError as error:
            error.name, error.path = spec.name, spec.origin
            raise

    ExtensionFileLoader.create_module = create_module


def _replace_network() -> None:
    """Makes the functions of ``socket`` fail before they reach the C library, which keeps a handle of the network from its first use."""
    import _socket

    class Socket(_socket.socket):
        __slots__ = ()

        def __init__(self, *_args: object, **_options: object) -> None:
            raise PermissionError(errno.EACCES, NO_NETWORK)

    def resolve(*_args: object, **_options: object) -> None:
        raise _socket.gaierror(_socket.EAI_FAIL, NO_NETWORK)

    _socket.socket = _socket.SocketType = Socket
    for name in ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"):
        setattr(_socket, name, resolve)


def _no_pipe() -> None:
    raise OSError(errno.ENOSYS, "a policy has no pipes")


class _Entries(Iterator[os.DirEntry]):
    """The entries of a folder, with the interface of ``os.scandir``'s iterator."""

    def __init__(self, entries: list[os.DirEntry]) -> None:
        self._entries = iter(entries)

    def __next__(self) -> os.DirEntry:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


_scandir = os.scandir


def scandir(path: str | bytes | os.PathLike | int | None = ".") -> _Entries:
    """``os.scandir`` without an open handle, which an iterator of the build would close in a decision."""
    with _scandir(path) as entries:
        return _Entries(list(entries))


def pbkdf2_hmac(hash_name: str, password: bytes, salt: bytes, iterations: int, dklen: int | None = None) -> bytes:
    """``hashlib.pbkdf2_hmac``, which Python only has with OpenSSL."""
    if iterations < 1:
        raise ValueError("iteration value must be greater than 0.")
    mac = hmac.new(password, None, hash_name)
    length = mac.digest_size if dklen is None else dklen
    if length < 1:
        raise ValueError("key length must be greater than 0.")
    key = b""
    while len(key) < length:
        block = len(key) // mac.digest_size + 1
        last = _update(mac, bytes(salt) + block.to_bytes(4, "big"))
        total = int.from_bytes(last, "big")
        for _ in range(iterations - 1):
            last = _update(mac, last)
            total ^= int.from_bytes(last, "big")
        key += total.to_bytes(mac.digest_size, "big")
    return key[:length]


def _update(mac: hmac.HMAC, data: bytes) -> bytes:
    mac = mac.copy()
    mac.update(data)
    return mac.digest()
