"""The tests run on your own Python, without a component: ``python3 -m unittest``, or ``pytest``.

This module adds the SDK, whose folder pyproject.toml names, to the search path, so that nothing has to be installed.
"""

import sys
import tomllib
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent
_MANIFEST = tomllib.loads((_PROJECT / "pyproject.toml").read_text())
sys.path[:0] = [str(_PROJECT), str(_PROJECT / _MANIFEST["tool"]["tidegate"]["sdk"])]
