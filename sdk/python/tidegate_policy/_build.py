"""What happens once, while a component is built: the policy's module is loaded, and all that it will need.

There are no files at a decision, so every module has to be loaded now, also those that a function imports.
"""

from __future__ import annotations

import ast
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from types import ModuleType

from . import _logs, settings

#: Around what the builder shall show of a failure, on standard output.
BEGIN, END = "<<<tidegate-policy", "tidegate-policy>>>"

#: What the standard library loads at its first use, where it had files.
LATE = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8_sig")
LATE_FOR = {
    "datetime": ("_strptime",),
    "time": ("_strptime",),
    "socket": ("encodings.idna",),
    "asyncio": ("asyncio.base_events",),
}


class BuildError(Exception):
    """The policy cannot be built; the text says what is wrong and where."""


class Environment(MutableMapping[str, str]):
    """``os.environ``: the policy's settings, read at each decision. There is no way to list those."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._own: dict[str, str] = {}
        self._is_open = False

    def open(self) -> None:
        """From now on there are settings."""
        self._is_open = True

    def __getitem__(self, name: str) -> str:
        if name in self._own:
            return self._own[name]
        value = settings.get(name) if self._is_open else self._early(name)
        if value is None:
            raise KeyError(name)
        return value

    def _early(self, name: str) -> None:
        """While the policy is built its own code may not ask, by way of a library neither. A library that asks while it is
        itself loaded finds nothing."""
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            if frame.f_code.co_filename.startswith(self._root):
                raise RuntimeError(
                    f"os.environ[{name!r}] is read while the policy is built, and would stay in it: the settings are "
                    "there at a decision, so read it in authorize, or in a function that authorize calls"
                )
            frame = frame.f_back

    def __setitem__(self, name: str, value: str) -> None:
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        del self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def load(module: str, root: str) -> Callable:
    """The function ``authorize`` of the policy's module."""
    try:
        policy = importlib.import_module(module)
        authorize = getattr(policy, "authorize", None)
        if not callable(authorize):
            raise BuildError(f"{module}.py has no function authorize(request, channels)")
        _load_what_functions_import(root)
    except BaseException as error:
        print(f"{BEGIN}\n{_explain(error, root)}\n{END}")
        raise
    for late in LATE + tuple(late for user, lates in LATE_FOR.items() if user in sys.modules for late in lates):
        importlib.import_module(late)
    _logs.install()
    return authorize


def _load_what_functions_import(root: str) -> None:
    """Loads what the functions of the policy's own modules import, and keeps those modules' lines for tracebacks."""
    seen: set[str] = set()
    while modules := [module for module in _own_modules(root) if module.__name__ not in seen]:
        for module in modules:
            seen.add(module.__name__)
            file = module.__file__ or ""
            lines = linecache.getlines(file)
            # Without a time of change: nobody looks whether the file is still the same.
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
            for name in _imported(ast.parse("".join(lines), file)):
                try:
                    importlib.import_module(name, module.__package__)
                except ImportError:
                    # At the top level it would have failed before; in a function it may never be reached, or be optional.
                    pass


def _own_modules(root: str) -> list[ModuleType]:
    modules = ((module, getattr(module, "__file__", None)) for module in list(sys.modules.values()))
    return [module for module, file in modules if file and file.startswith(root) and file.endswith(".py")]


def _imported(tree: ast.AST) -> Iterator[str]:
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    for node in (node for function in functions for node in ast.walk(function)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            if node.module:
                yield package
            # What is imported from a package may be one of its modules.
            between = "." if node.module else ""
            yield from (f"{package}{between}{alias.name}" for alias in node.names if alias.name != "*")


def _explain(error: BaseException, root: str) -> str:
    """What is wrong, and where in the author's own files."""
    if isinstance(error, BuildError):
        return str(error)
    if isinstance(error, SyntaxError):
        text = "".join(traceback.format_exception_only(error))
        return f"{error.filename}:{error.lineno}: {error.msg}\n{text}".replace(root, "")
    # What Python and the SDK do around the author's own code says nothing.
    around = ("importlib", os.path.dirname(__file__))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in around)
    ]
    own = [frame for frame in frames if frame.filename.startswith(root)]
    place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{place}{_absent(error.name)}"
    else:
        text = f"{place}{type(error).__name__}: {error}"
        if isinstance(error, ImportError) and not frames[-1].filename.startswith(root):
            text += " (in a component only packages of pure Python run)"
    trace = "".join(traceback.format_list(frames)).rstrip() if len(frames) > 1 else ""
    return f"{text}\n{trace}".rstrip().replace(root, "")


def _absent(module: str) -> str:
    """Why there is no such module, as far as its name tells."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return f"Python's own module {module} is not there in a component"
    if package != module and importlib.util.find_spec(package):
        return f"there is no module {module}: if it is compiled, the package {package} does not run in a component"
    return (
        f"there is no module {module}: name its package in the dependencies of pyproject.toml, or install it into .venv "
        "(in a component only packages of pure Python run)"
    )
