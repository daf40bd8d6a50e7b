"""Installs the packages of a policy with pip: wheels of pure Python only.

Asked for such wheels, pip goes back through the releases until it finds one. Here a release that is older than the one that the
requirements allow is an error that names the package in the way. A release that the requirements chose is installed and named.

Arguments: the folder to install into, the component's version of Python, and pip's arguments for the requirements. The result, one
line per package to name or the error, is printed on standard output.

It uses internal functions of pip, whose version `toolchain.rs` fixes.
"""

import contextlib
import email
import io
import json
import os
import sys
import tempfile
import zipfile
from collections import deque

from pip._internal.cli.main import main as pip
from pip._internal.commands import create_command
from pip._internal.exceptions import PipError
from pip._internal.index import collector
from pip._internal.models.wheel import Wheel
from pip._vendor.packaging import markers
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.specifiers import SpecifierSet
from pip._vendor.packaging.utils import canonicalize_name
from pip._vendor.packaging.version import Version


def environment(python):
    """The values of environment markers in a component."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "wasm32",
        "platform_python_implementation": "CPython",
        "platform_release": "0.0.0",
        "platform_system": "wasi",
        "platform_version": "0.0.0",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "wasi",
    }


class Index:
    """All files of the packages, also those that a component cannot use."""

    def __init__(self, command, arguments, python):
        self.python = python
        #: Reasons why a page of an index could not be read, other than that there is none.
        self.failures = []
        Wheel.supported = lambda wheel, tags: True
        collector._handle_get_simple_fail = lambda link, reason, meth=None: self._fail(reason)
        options, names = command.parse_args(arguments)
        self.session = command.get_default_session(options)
        self.finder = command._build_package_finder(options, self.session, ignore_requires_python=True)
        found = command.get_requirements(names, options, self.finder, self.session)
        self.requirements = [one for one in found if one.req is not None and one.match_markers()]

    def _fail(self, reason):
        if getattr(getattr(reason, "response", None), "status_code", None) != 404:
            self.failures.append(str(reason))

    def files(self, name):
        return self.finder.find_all_candidates(name)

    def newest(self, name, specifier=SpecifierSet(), any_python=False):
        """The newest release that pip would take of all files."""
        is_exact = any(one.operator in ("==", "===") for one in specifier)
        files = (file for file in self.files(name) if is_exact or not file.link.is_yanked)
        versions = {file.version for file in files if any_python or self._supports_python(file)}
        return max(specifier.filter(versions), default=None)

    def _supports_python(self, file):
        try:
            return SpecifierSet(file.link.requires_python or "").contains(f"{self.python}.0")
        except ValueError:
            return True

    def _tags(self, name, version):
        """The files of a release, with the tags of wheels."""
        files = (file.link for file in self.files(name) if file.version == version)
        return [(link, Wheel(link.filename).file_tags if link.is_wheel else ()) for link in files]

    def pure_wheel(self, name, version):
        """The wheel of a release that a component can use."""
        is_pure = lambda tag: tag.interpreter.startswith("py3") and (tag.abi, tag.platform) == ("none", "any")
        return next((link for link, tags in self._tags(name, version) if any(map(is_pure, tags))), None)

    def is_compiled(self, name, version):
        return any((tag.abi, tag.platform) != ("none", "any") for _, tags in self._tags(name, version) for tag in tags)

    def requires(self, wheel):
        """The requirements of a wheel."""
        if metadata := wheel.metadata_link():
            text = self._download(metadata)
        else:
            with zipfile.ZipFile(io.BytesIO(self._download(wheel))) as archive:
                text = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))
        return email.message_from_bytes(text).get_all("Requires-Dist", [])

    def _download(self, link):
        if link.is_file:
            with open(link.file_path, "rb") as file:
                return file.read()
        response = self.session.get(link.url_without_fragment)
        response.raise_for_status()
        return response.content


def active(lines, extras):
    """The requirements that apply with these extras."""
    for line in lines:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def obstacle(index, installed):
    """The first package, from the project's requirements downwards, whose release would be taken elsewhere but not by a component."""
    asked = [one.req for one in index.requirements if not one.constraint]
    limits = {}
    for one in index.requirements:
        name = canonicalize_name(one.req.name)
        limits[name] = limits.get(name, SpecifierSet()) & one.req.specifier
    queue, seen = deque((one, one, (one.name,)) for one in asked if not one.url), set()
    while queue:
        root, one, path = queue.popleft()
        name = canonicalize_name(one.name)
        if (name, *one.extras) in seen:
            continue
        seen.add((name, *one.extras))
        specifier = one.specifier & limits.get(name, SpecifierSet())
        version = index.newest(name, specifier)
        if version is None:
            return explain_none(index, path, name, specifier)
        wheel = index.pure_wheel(name, version)
        if wheel is None:
            return explain_wheel(index, path, root, version, installed)
        queue.extend((root, next_one, (*path, next_one.name)) for next_one in active(index.requires(wheel), one.extras))
    return None


def chain(path):
    """`a needs b, which needs c, which`, to be continued."""
    first, *rest = path
    return f"{first} needs {', which needs '.join(rest)}, which" if rest else first


def explain_none(index, path, name, specifier):
    """Why there is no release of a package."""
    if not index.files(name):
        if index.failures:
            return f"the index of packages cannot be read: {index.failures[-1]}"
        return f"{chain(path)} is not on the index of packages: check the name"
    newest = index.newest(name, any_python=True)
    if index.newest(name, specifier, any_python=True) is None:
        return f"{chain(path)} has no release {specifier}; the newest is {newest}"
    return f"{chain(path)} has no release {specifier or ''} for Python {index.python}, which a component has".replace("  ", " ")


def explain_wheel(index, path, asked, version, installed):
    """Why the newest release cannot be used, and what can be done."""
    name, root = path[-1], asked.name
    if index.is_compiled(name, version):
        reason = f"has compiled parts (there is no wheel of pure Python of {name} {version}), and they do not run in a component"
        remedy = "use another package (docs/policies/packages.md lists some)"
    else:
        reason = f"has no wheel, only a source distribution ({name} {version})"
        remedy = f"install the packages into .venv (python3 -m venv .venv && .venv/bin/pip install {root}), which the build then uses"
    older, current = installed.get(canonicalize_name(root)), index.newest(canonicalize_name(root))
    if asked.extras:
        remedy += f", or {root} without [{','.join(sorted(asked.extras))}]"
    elif older and current and older < current:
        remedy += f", or pin an old release without it ({root}=={older})"
    return f"{chain(path)} {reason}: {remedy}"


def notes(index, report):
    """The packages whose current release was not taken, with the reason, and whether the requirements explain all of them."""
    packages = {canonicalize_name(one["metadata"]["name"]): one for one in report["install"]}
    reasons = {}
    extras = {name: set() for name in packages}
    for one in index.requirements:
        name = canonicalize_name(one.req.name)
        reasons.setdefault(name, []).append((one.req, "the project"))
        extras.setdefault(name, set()).update(one.req.extras)
    # Extras of packages add requirements, whose extras add more.
    for _ in packages:
        for name, package in packages.items():
            for one in active(package["metadata"].get("requires_dist", []), extras[name]):
                extras.setdefault(canonicalize_name(one.name), set()).update(one.extras)
    for name, package in packages.items():
        for one in active(package["metadata"].get("requires_dist", []), extras[name]):
            reasons.setdefault(canonicalize_name(one.name), []).append((one, package["metadata"]["name"]))
    lines, is_explained = [], True
    for name, package in sorted(packages.items()):
        if package["is_direct"]:
            continue
        version, current = Version(package["metadata"]["version"]), index.newest(name, any_python=True)
        if current is None or version >= current:
            continue
        line = f"{package['metadata']['name']} {version} is installed; the current release is {current}"
        specifier = SpecifierSet()
        for one, _ in reasons.get(name, ()):
            specifier &= one.specifier
        allowed = index.newest(name, specifier)
        by = [f"{who} needs {one}" for one, who in reasons.get(name, ()) if not one.specifier.contains(current)]
        is_allowed = allowed is not None and version < allowed
        is_explained &= not is_allowed
        if by:
            line += f" ({by[0]})"
        elif not is_allowed:
            line += f", which is not for Python {index.python}"
        lines.append(line)
    return lines, is_explained


def run(target, python, arguments):
    """Installs the packages. Returns whether that succeeded, and lines about it."""
    markers.default_environment = lambda: environment(python)
    pure = ["--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none", "--python-version", python]
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "report.json")
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--ignore-installed"]
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            is_installed = pip([*install, "--report", file, "--target", target, *pure, *arguments]) == 0
        if is_installed:
            with open(file) as text:
                report = json.load(text)
        else:
            report = {"install": []}
    try:
        return check(python, arguments, report, is_installed, printed.getvalue().strip())
    except (PipError, OSError) as error:
        return False, [str(error)]


def check(python, arguments, report, is_installed, printed):
    """Compares the installed packages with the index. Returns whether they are right, and lines about them."""
    command = create_command("install")
    with command.main_context():
        index = Index(command, arguments, python)
        lines, is_explained = notes(index, report)
        if is_installed and is_explained:
            return True, lines
        versions = {one["metadata"]["name"]: Version(one["metadata"]["version"]) for one in report["install"]}
        error = obstacle(index, {canonicalize_name(name): version for name, version in versions.items()})
        if error is None and not is_installed:
            error = f"pip cannot install them:\n{printed}"
        return error is None, lines if error is None else [error]


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        succeeded, lines = run(sys.argv[1], sys.argv[2], sys.argv[3:])
    print("\n".join(lines))
    sys.exit(not succeeded)
