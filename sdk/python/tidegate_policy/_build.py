"""The build of a component: it loads the policy's module and all modules that the policy needs.

A decision has no files, so every module has to be loaded at build, also those that a function imports.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from types import ModuleType

from . import _logs, settings

#: Markers around the error message, on standard output, that the builder shows to the author.
BEGIN, END = "<<<tidegate-policy", "tidegate-policy>>>"

#: Modules that are loaded because functions of packages import them: more would make components too large for a gateway.
MAX_MODULES_OF_FUNCTIONS = 200

#: Modules that the standard library loads from files on first use.
LAZY_MODULES = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8_sig")
LAZY_MODULES_BY_USER = {
    "asyncio": ("asyncio.base_events",),
    "concurrent.futures": ("concurrent.futures.process", "concurrent.futures.thread"),
    "datetime": ("_strptime",),
    "multiprocessing": (
        "multiprocessing.dummy",
        "multiprocessing.managers",
        "multiprocessing.pool",
        "multiprocessing.popen_spawn_posix",
        "multiprocessing.queues",
        "multiprocessing.resource_tracker",
        "multiprocessing.shared_memory",
        "multiprocessing.sharedctypes",
        "multiprocessing.synchronize",
    ),
    "socket": ("encodings.idna", "encodings.punycode"),
    "time": ("_strptime",),
}


class BuildError(Exception):
    """The policy cannot be built. The text has the cause and the location."""


class Environment(MutableMapping[str, str]):
    """``os.environ``: the policy's settings, read in each decision. They cannot be listed."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._own: dict[str, str] = {}
        self._is_open = False

    def open(self) -> None:
        """Makes the settings readable."""
        self._is_open = True

    def __getitem__(self, name: str) -> str:
        if name in self._own:
            return self._own[name]
        value = settings.get(name) if self._is_open else self._reject_at_build(name)
        if value is None:
            raise KeyError(name)
        return value

    def _reject_at_build(self, name: str) -> None:
        """Raises if the policy's own code reads a setting at build, directly or through a library.

        A library that reads a setting while it is itself imported finds nothing.
        """
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            if frame.f_code.co_filename.startswith(self._root):
                raise RuntimeError(
                    f"os.environ[{name!r}] is read while the policy is built, and would become part of the component: "
                    "settings exist only in a decision, so read it in authorize, or in a function that authorize calls"
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
    """Loads the policy's module and returns its function ``authorize``."""
    before = set(sys.modules)
    try:
        policy = importlib.import_module(module)
        authorize = getattr(policy, "authorize", None)
        if not callable(authorize):
            raise BuildError(f"{module}.py has no function authorize(request, channels)")
        _load_imports_of_functions(root)
        _load_imports_of_packages(root, before)
    except BaseException as error:
        print(f"{BEGIN}\n{_explain(error, root)}\n{END}")
        raise
    used = (name for user, names in LAZY_MODULES_BY_USER.items() if user in sys.modules for name in names)
    for name in (*LAZY_MODULES, *used):
        # Some need what a component does not have.
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module(name)
    _logs.install()
    return authorize


def _load_imports_of_functions(root: str) -> None:
    """Loads the modules that functions of the policy's own modules import, and caches the source lines for tracebacks."""
    loaded: set[str] = set()
    while modules := [module for module in _own_modules(root) if module.__name__ not in loaded]:
        for module in modules:
            loaded.add(module.__name__)
            file = module.__file__ or ""
            lines = linecache.getlines(file)
            # Without a modification time, linecache does not check whether the file has changed.
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
            for name in _imported(ast.parse("".join(lines), file)):
                try:
                    importlib.import_module(name, module.__package__)
                except ImportError:
                    # An import in a function may be optional or unreachable; a failed import at the top level was reported before.
                    pass


def _load_imports_of_packages(root: str, before: set[str]) -> None:
    """Loads the modules that functions of packages import, but not those that functions of these modules import.

    ``before`` are the modules that were loaded before the policy, which are not those of its packages.
    """
    limit = len(sys.modules) + MAX_MODULES_OF_FUNCTIONS
    for module in [module for name, module in sys.modules.items() if name not in before]:
        file = getattr(module, "__file__", None) or ""
        if not file.endswith(".py") or _package_of(file, root) in (None, __package__):
            continue
        for name in sorted(set(_imported_by_functions(file))):
            if len(sys.modules) > limit:
                return
            # An import in a function may be optional or unreachable.
            with contextlib.suppress(Exception, SystemExit):
                importlib.import_module(name, module.__package__)


#: An import within a block of code.
_IMPORT = re.compile(r"\s+(?:from\s+([.\w]+)\s+import\s+\(?\s*([\w, ]*)|import\s+([.\w, ]+))")


def _imported_by_functions(file: str) -> Iterator[str]:
    """Reads a file line by line, because what a parser of large files leaves in memory would become part of the component."""
    is_function = False
    with open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line[0].isalpha():
                is_function = line.startswith(("async def ", "class ", "def "))
            elif is_function and (found := _IMPORT.match(line)):
                package, names, modules = found.groups()
                separator = "" if package and package.endswith(".") else "."
                for name in (names or modules or "").split(","):
                    name = name.split(" as ")[0].strip()
                    if package is None:
                        yield name
                    elif name:
                        yield f"{package}{separator}{name}"
                if package and package.strip("."):
                    yield package


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
            # A name imported from a package may be one of its modules.
            separator = "." if node.module else ""
            yield from (f"{package}{separator}{alias.name}" for alias in node.names if alias.name != "*")


def _explain(error: BaseException, root: str) -> str:
    """Describes an error and its location in the author's own files."""
    if isinstance(error, BuildError):
        return str(error)
    if isinstance(error, SyntaxError):
        text = "".join(traceback.format_exception_only(error))
        return f"{error.filename}:{error.lineno}: {error.msg}\n{text}".replace(root, "")
    # Frames of Python's import system and of the SDK do not help the author.
    hidden = ("importlib", os.path.dirname(__file__))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in hidden)
    ]
    own_frames = [frame for frame in frames if frame.filename.startswith(root)]
    location = f"{own_frames[-1].filename}:{own_frames[-1].lineno}: " if own_frames else ""
    compiled = _explain_compiled_module(error, frames, root) if isinstance(error, ImportError) and error.name else None
    if compiled:
        text = f"{location}{compiled}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{location}{_explain_missing_module(error.name)}"
    else:
        text = f"{location}{type(error).__name__}: {error}"
        if isinstance(error, ImportError) and not frames[-1].filename.startswith(root):
            text += " (in a component only packages of pure Python run)"
    trace = "".join(traceback.format_list(frames)).rstrip() if len(frames) > 1 else ""
    return f"{text}\n{trace}".rstrip().replace(root, "")


def _explain_compiled_module(error: ImportError, frames: list[traceback.FrameSummary], root: str) -> str | None:
    """Describes a module that is there, but compiled for another machine, and the packages that need it."""
    # The name that was not found in a package may be one of its modules.
    name_from = getattr(error, "name_from", None)
    names = [error.name, f"{error.name}.{name_from}"] if name_from else [error.name]
    file = next(filter(None, map(_compiled_file, names)), None)
    if file is None:
        return None
    from importlib.metadata import packages_distributions

    # The packages whose modules import each other, from the author's own modules on.
    users = filter(None, (_package_of(frame.filename, root) for frame in frames))
    distributions = packages_distributions()
    users = (*users, error.name.partition(".")[0])
    chain = list(dict.fromkeys(distributions.get(user, [user])[0] for user in users))
    needs = f"{chain[0]} needs {', which needs '.join(chain[1:])}, which" if len(chain) > 1 else chain[0]
    return f"{needs} has compiled parts ({file}), and they do not run in a component"


def _compiled_file(module: str) -> str | None:
    """The file of a compiled module."""
    package, *parts = module.split(".")
    folders = sys.path
    if parts:
        spec = importlib.util.find_spec(package)
        folders = [os.path.join(folder, *parts[:-1]) for folder in (spec and spec.submodule_search_locations) or ()]
    files = (file for folder in folders if os.path.isdir(folder) for file in os.listdir(folder))
    begin = module.rpartition(".")[2] + "."
    return next((file for file in files if file.startswith(begin) and file.endswith((".so", ".pyd"))), None)


def _package_of(filename: str, root: str) -> str | None:
    """The top-level package or module of an installed file."""
    folders = (folder.rstrip("/") + "/" for folder in sys.path if folder)
    folder = max((folder for folder in folders if filename.startswith(folder)), key=len, default=None)
    if folder in (None, root, f"{os.path.dirname(os.__file__)}/"):
        return None
    return filename.removeprefix(folder).partition("/")[0].removesuffix(".py")


def _explain_missing_module(module: str) -> str:
    """Describes why a module is missing, as far as its name reveals it."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return f"Python's own module {module} is not available in a component"
    if package != module and importlib.util.find_spec(package):
        return f"there is no module {module}: if it is compiled, the package {package} does not run in a component"
    return (
        f"there is no module {module}: name its package in the dependencies of pyproject.toml, or install it into .venv "
        "(in a component only packages of pure Python run)"
    )
