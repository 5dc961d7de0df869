"""The folder in which the tasks of this process's workflows run."""

from __future__ import annotations

from pathlib import Path

from jobmon.core.exceptions import ConfigError


def working_directory() -> str:
    """Return the directory in which tasks will run.

    Raises:
        ConfigError: it has been removed.
    """
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("The current directory is gone; change to a directory in which tasks can run.") from None
