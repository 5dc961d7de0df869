"""What all components share: state machines (`fsm`), vocabulary (`constants`), messages (`wire`), settings, plug-ins.

Imports no other jobmon package. Start with `fsm.py`, then `wire/`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Return `paths` by its former name, which plug-ins for 0.1 use."""
    if name == "places":
        from jobmon.core import paths

        return paths
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
