"""The client library that user scripts import: define, bind, start and monitor a workflow.

Definitions (`tool`, `task_template`, `task`, `workflow`) are values. `binding.py` sends them to the server,
`running.py` has the sequence of steps of a run, and `swarm/` decides what runs next. Imports `core` only. Start with
`workflow.py`.
"""

from typing import Any

from jobmon.client import tracebacks

tracebacks.install()


def __getattr__(name: str) -> Any:
    """Look up the version only on access, because reading the package metadata is slow."""
    if name == "__version__":
        from importlib.metadata import version

        return version("jobmon")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
