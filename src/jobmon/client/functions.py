"""Find the recorded functions of expansions: by name, and never in a folder that other users might have written to."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobmon.core import expansions

if TYPE_CHECKING:
    from collections.abc import Callable


class NotImportable(Exception):
    """Why a function cannot be imported."""


def load_here(function: str) -> Callable[..., Any]:
    """Return a function of the running script, or of a module that it could import.

    Args:
        function: `module:function`.

    Raises:
        NotImportable: there is no such function.
    """
    return _load(function)


def load_installed(function: str) -> Callable[..., Any]:
    """Return a function of an installed package, or of one in `PYTHONPATH`.

    The working folder does not count: what somebody else placed there must not run.

    Args:
        function: `module:function`.

    Raises:
        NotImportable: there is no such function there.
    """
    if not expansions.is_importable(function):
        raise NotImportable("it is defined in a script or inside another function")
    top = function.partition(":")[0].partition(".")[0]
    allowed = PathFinder.find_spec(top, _trusted_folders())
    if allowed is None or allowed.origin is None:
        raise NotImportable(f"module {top!r} is neither installed nor in PYTHONPATH")
    loaded = sys.modules.get(top)
    found = getattr(loaded, "__file__", None) if loaded is not None else _origin(top)
    if found != allowed.origin:
        raise NotImportable(f"module {top!r} is found in another place first: {found}")
    return _load(function)


def _origin(module: str) -> str | None:
    found = PathFinder.find_spec(module)
    return None if found is None else found.origin


def _trusted_folders() -> list[str]:
    """Return the folders of installed packages and of `PYTHONPATH`; a relative path depends on the working folder."""
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    named = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(one)]
    prefixes = tuple(f"{Path(prefix).resolve()}{os.sep}" for prefix in {sys.prefix, sys.base_prefix})
    site = [one for one in sys.path if os.path.isabs(one) and f"{Path(one).resolve()}{os.sep}".startswith(prefixes)]
    return [*named, *map(str, sorted(installed)), *site]


def _load(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise NotImportable(f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise NotImportable("it is not a function")
    return found  # type: ignore[no-any-return]
