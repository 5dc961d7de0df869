"""How to install Jobmon: the only place that says so.

The name `jobmon` on the public index belongs to a different program. Until this project has a name there, it is
installed from a checkout or from the wheel that `python -m build` creates.
"""

from __future__ import annotations

from typing import Final

#: The command to run in a checkout of the wanted version.
INSTALL: Final = "pip install --constraint constraints.txt ."


def how_to_install(extra: str = "") -> str:
    """Return how to install or upgrade Jobmon, as the end of a sentence.

    >>> how_to_install("postgres")
    "in a checkout of Jobmon: pip install --constraint constraints.txt '.[postgres]'"
    """
    command = f"{INSTALL.removesuffix('.')}'.[{extra}]'" if extra else INSTALL
    return f"in a checkout of Jobmon: {command}"
