"""Jobmon, a persistent workflow manager: `from jobmon import Tool`.

Names are loaded when they are used: workers import this file, too.
"""

from __future__ import annotations

import sys
from os import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Other distributions add cluster plug-ins in `jobmon/plugins` of their own folders.
__path__ += [
    folder for entry in sys.path if path.isdir(folder := path.join(entry, "jobmon")) and folder not in __path__
]


def __getattr__(name: str) -> Any:
    """Return a public name of `jobmon.client.api`, or the version."""
    if name == "__version__":
        from importlib.metadata import version

        return version("jobmon")
    if not name.startswith("_"):
        from jobmon.client import api

        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
