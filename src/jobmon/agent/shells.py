"""The shell that runs commands: one rule for the text of the setting `worker_node.shell` and of the resource `shell`.

The text is split into words once, as a shell would split it. The first word is a program, given by its path or by a
name on PATH. `-c` is appended if it is missing, and the command follows as the last word.
"""

from __future__ import annotations

import os

DEFAULT_SHELL = "/bin/sh"
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def shell_words(shell: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words that precede the command: the program, its options, and `-c`.

    A text that cannot be split is treated as the name of a program, which then does not exist. `shell_problem` reports
    this before anything runs; without that check, the attempt reports it.

    >>> shell_words("bash -euo pipefail"), shell_words("/bin/bash -lc")
    (('bash', '-euo', 'pipefail', '-c'), ('/bin/bash', '-lc'))
    """
    words = _split(shell) if isinstance(shell, str) else tuple(map(str, shell))
    words = words or (str(shell),)
    return words if _takes_command(words) else (*words, "-c")


def _takes_command(words: Sequence[str]) -> bool:
    """Return whether the last word is `-c`, alone or at the end of a group of short options such as `-lc`."""
    last = words[-1]
    return len(words) > 1 and last.startswith("-") and not last.startswith("--") and last.endswith("c")


def _split(text: str) -> tuple[str, ...]:
    if "'" not in text and '"' not in text and "\\" not in text:
        return tuple(text.split())
    import shlex  # imported here so that workers that run /bin/sh do not load it

    try:
        return tuple(shlex.split(text))
    except ValueError:
        return ()


def shell_problem(shell: Any, *, is_here: bool = True) -> str:
    """Return why a shell cannot run commands, as a clause; "" if it can.

    Args:
        shell: the text or the list of words given by a user.
        is_here: whether the program must exist on this machine; otherwise only the text is checked.
    """
    if isinstance(shell, str):
        if not _split(shell):
            return "a quotation mark is not closed" if shell.strip() else "it names no program"
    elif not (isinstance(shell, list | tuple) and all(isinstance(word, str) for word in shell)):
        return "it must be a string or a list of strings"
    elif not any(shell):
        return "it names no program"
    return _program_problem(shell_words(shell)[0]) if is_here else ""


def _program_problem(program: str) -> str:
    if "/" not in program:
        folders = os.environ.get("PATH", DEFAULT_PATH).split(os.pathsep)
        is_found = any(_is_program(os.path.join(folder or ".", program)) for folder in folders)
        return "" if is_found else f"program {program!r} is not on PATH"
    if _is_program(program):
        return ""
    return f"{program} is not executable" if os.path.exists(program) else f"{program} does not exist"


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
