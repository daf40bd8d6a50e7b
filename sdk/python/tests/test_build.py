"""The build's loading of modules, with folders in place of a component."""

import contextlib
import io
import os
import sys
import tempfile
import unittest
from pathlib import Path

from tidegate_policy import _build, _host
from tidegate_policy.testing import TestGateway


class Build(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = f"{Path(folder.name).resolve()}/"
        modules, path, environ = set(sys.modules), list(sys.path), os.environ
        sys.path.insert(0, self.root)

        def restore() -> None:
            sys.path[:], os.environ = path, environ
            for module in set(sys.modules) - modules:
                del sys.modules[module]

        self.addCleanup(restore)
        self.environment = _build.Environment(self.root)
        os.environ = self.environment

    def write(self, name: str, text: str) -> None:
        file = Path(self.root, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def failure(self, text: str, error: type[BaseException] = Exception) -> str:
        """Returns the error message that the author of this app.py gets."""
        self.write("app.py", text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), self.assertRaises(error):
            _build.load("app", self.root)
        begin, *lines, end, _ = printed.getvalue().split("\n")
        self.assertEqual((begin, end), (_build.BEGIN, _build.END))
        return "\n".join(lines)

    def test_error_names_file_and_line(self) -> None:
        text = self.failure("import json\ndef authorize(request, channels:\n    pass\n")
        self.assertTrue(text.startswith("app.py:2: "), text)
        self.assertIn("SyntaxError", text)
        text = self.failure("\n\nx = {}['a']\n")
        self.assertTrue(text.startswith("app.py:3: KeyError: 'a'"), text)
        self.write("inner.py", "def f():\n    return 1 / 0\n")
        text = self.failure("import inner\ninner.f()\n")
        self.assertTrue(text.startswith("inner.py:2: ZeroDivisionError"), text)
        self.assertIn('File "app.py", line 2', text)
        self.assertNotIn("tidegate_policy", text)
        self.assertTrue(self.failure("raise SystemExit(3)", SystemExit).startswith("app.py:1: SystemExit: 3"))

    def test_missing_module_is_explained(self) -> None:
        text = self.failure("import os\nimport nosuchmodule\n")
        self.assertTrue(text.startswith("app.py:2: there is no module nosuchmodule: name its package"), text)
        self.write("half/__init__.py", "from half import _native\nfrom half._fast import f\n")
        text = self.failure("import half\n")
        self.assertIn("half/__init__.py:1: ImportError: cannot import name '_native'", text)
        self.write("half/__init__.py", "from half._fast import f\n")
        text = self.failure("import half\n")
        self.assertIn("the package half does not run in a component", text)

    def test_imports_of_functions_of_packages_are_loaded(self) -> None:
        packages = tempfile.TemporaryDirectory()
        self.addCleanup(packages.cleanup)
        sys.path.append(packages.name)
        text = "def f():\n    import wave\n    from xml.dom import minidom\n    from .inner import x\n    from . import broken, absent\n"
        for name, text in (("__init__", text), ("inner", "x = 1"), ("broken", "raise SystemExit")):
            Path(packages.name, "lazy").mkdir(exist_ok=True)
            Path(packages.name, "lazy", f"{name}.py").write_text(text)
        self.write("app.py", "import lazy\ndef authorize(request, channels):\n    pass\n")
        _build.load("app", self.root)
        self.assertIn("wave", sys.modules)
        self.assertIn("xml.dom.minidom", sys.modules)
        self.assertIn("lazy.inner", sys.modules)

    def test_compiled_module_is_explained(self) -> None:
        packages = tempfile.TemporaryDirectory()
        self.addCleanup(packages.cleanup)
        sys.path.append(packages.name)
        for name, text in {
            "fast/__init__.py": "from fast.inner import loads\n",
            "fast/inner/__init__.py": "from ._native import loads\n",
            "fast/inner/_native.cpython-39-i386-linux-gnu.so": "",
            "faster/__init__.py": "from . import _native\n",
            "faster/_native.pyd": "",
            "user.py": "def load():\n    import fast\nload()\n",
        }.items():
            file = Path(packages.name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        explained = "has compiled parts (_native.cpython-39-i386-linux-gnu.so), and they do not run in a component"
        text = self.failure("import json\nimport fast\n")
        self.assertTrue(text.startswith(f"app.py:2: fast {explained}"), text)
        text = self.failure("import user\n")
        self.assertTrue(text.startswith(f"app.py:1: user needs fast, which {explained}"), text)
        text = self.failure("import faster\n")
        if sys.version_info >= (3, 12):  # older ones do not tell the name
            self.assertTrue(text.startswith("app.py:1: faster has compiled parts (_native.pyd)"), text)

    def test_policy_without_authorize_is_an_error(self) -> None:
        for text in ("", "authorize = 3\n"):
            self.assertEqual(self.failure(text), "app.py has no function authorize(request, channels)")

    def test_settings_cannot_be_read_at_build(self) -> None:
        text = self.failure("import os\ndef key():\n    return os.getenv('KEY', 'none')\nKEY = key()\n")
        self.assertTrue(text.startswith("app.py:3: RuntimeError: os.environ['KEY'] is read while"), text)
        text = self.failure("from tidegate_policy import settings\nKEY = settings.get('KEY')\n")
        self.assertTrue(text.startswith("app.py:2: NoGateway: there is no gateway here"), text)

    def test_libraries_find_an_empty_environment_at_build(self) -> None:
        libraries = tempfile.TemporaryDirectory()
        self.addCleanup(libraries.cleanup)
        sys.path.append(libraries.name)
        library = "import os\nassert os.getenv('PATH', 'none') == 'none' and not list(os.environ)\n"
        Path(libraries.name, "alibrary.py").write_text(f"{library}def read(name): return os.environ.get(name)\n")
        self.write("app.py", "import alibrary\ndef authorize(request, channels): pass\n")
        _build.load("app", self.root)
        # A value that it reads for the policy's own code would become part of the component.
        del sys.modules["app"]
        text = self.failure("import alibrary\nKEY = alibrary.read('KEY')\n")
        self.assertTrue(text.startswith("app.py:2: RuntimeError: os.environ['KEY'] is read while"), text)

    def test_environment_has_the_settings_in_a_decision(self) -> None:
        self.write(
            "app.py", "import os\ndef authorize(request, channels): return os.environ['KEY'], os.getenv('x', 'y')\n"
        )
        authorize = _build.load("app", self.root)
        self.environment.open()
        with TestGateway(settings={"KEY": "value"}):
            self.assertEqual(authorize(None, []), ("value", "y"))
            os.environ["KEY"] = "other"
            self.assertEqual(authorize(None, [])[0], "other")

    def test_imports_of_functions_are_loaded(self) -> None:
        self.write("package/__init__.py", "")
        self.write("package/late.py", "import later\n")
        self.write("later.py", "def f():\n    import latest\n")
        self.write("latest.py", "")
        self.write("typed.py", "")
        self.write(
            "app.py",
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import typed\n"
            "def authorize(request, channels):\n    from package import late\n    import nosuchmodule\n",
        )
        _build.load("app", self.root)
        self.assertLessEqual({"package.late", "later", "latest"}, set(sys.modules))
        self.assertNotIn("typed", sys.modules)

    def tearDown(self) -> None:
        self.assertIs(_host.current(), _host.no_host)
