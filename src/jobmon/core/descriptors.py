"""Standard descriptors: ensure that they exist before anything else is opened, and that they never cause a failure."""

from __future__ import annotations

import os
import sys
from typing import IO, Final

_STANDARD: Final = (0, 1, 2)


def open_standard() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed.

    A parent may have closed them. Otherwise, the next file or connection would get such a number: libraries that write
    to standard error would write into it, and libuv refuses to work with it.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            _open_null(number)


def _open_null(number: int) -> None:
    descriptor = os.open(os.devnull, os.O_RDWR)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.set_inheritable(number, True)


def replace_closed_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by /dev/null if the program closed them or was started without them.

    Every write to a closed stream fails, including those of `logging`, which reports the failure on standard error.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            _discard(name)


def replace_broken_standard_error() -> None:
    """Replace `sys.stderr` by /dev/null if its buffer cannot be written: the terminal is gone, or the disk is full.

    The write would fail again when the interpreter exits, with exit code 120.
    """
    try:
        sys.stderr.flush()
    except OSError:
        _discard("stderr")


def _discard(name: str) -> None:
    setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open for the life of the process


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a stream is a terminal; a closed stream is not."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False
