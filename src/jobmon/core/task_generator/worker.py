"""The worker's side: find the function that a command names, and call it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.task_generator.generator import WORKER_IMPORTS, TaskGenerator
from jobmon.core.task_generator.words import unquoted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

USAGE: Final = (
    "usage: python -m jobmon.core.task_generator --module NAME --func NAME [--path FOLDER | --source FILE]"
    " --args [name=value ...]\n"
)
_OPTIONS: Final = frozenset({"--module", "--func", "--path", "--source"})
_EXIT_USAGE: Final = 2


def main(words: Sequence[str]) -> int:
    """Run a command. Exceptions of the function propagate: Python exits with a traceback and exit code 1."""
    options = _options(words)
    if options is None or not {"--module", "--func"} <= options.keys():
        sys.stderr.write(USAGE)
        return _EXIT_USAGE
    generator = _generator(options)
    generator.run(words[words.index("--args") + 1 :])
    return 0


def _options(words: Sequence[str]) -> dict[str, str] | None:
    if "--args" not in words:
        return None
    given = words[: words.index("--args")]
    pairs = list(zip(given[::2], given[1::2], strict=False))
    if len(given) % 2 or not {name for name, _ in pairs} <= _OPTIONS:
        return None
    return {name: unquoted(word) for name, word in pairs}


def _generator(options: dict[str, str]) -> TaskGenerator[..., Any]:
    """Return the decorated function.

    Raises:
        LookupError: the module has no decorated function of this name; also any error that the import raises.
    """
    name, function = options["--module"], options["--func"]
    token = WORKER_IMPORTS.set(True)
    try:
        source = options.get("--source")
        module = _import(name, options.get("--path")) if source is None else _load(name, source)
    finally:
        WORKER_IMPORTS.reset(token)
    generator = getattr(module, function, None)
    if not isinstance(generator, TaskGenerator):
        raise LookupError(
            f"{getattr(module, '__file__', name)} has no {function!r} decorated with @task_generator()"
            " (as the outermost decorator)."
        )
    return generator


def _import(name: str, folder: str | None) -> ModuleType:
    """Import a module by name, from the folder from which the client imported it."""
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def _load(name: str, source: str) -> ModuleType:
    """Load a file as a module. Like a script, it finds modules next to it; `__name__` is not "__main__"."""
    folder = source.rpartition("/")[0] or "/"
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = name if name not in sys.modules else f"jobmon_source_{name}"  # a script may be called json.py
    spec = importlib.util.spec_from_file_location(known, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    spec.loader.exec_module(module)
    return module
