"""The output files of attempts: name them, open them, and read their tails.

The resources `stdout` and `stderr` each name a folder or a file. A value is a file if its name has an extension
(`all.log`) or if it is a device (`/dev/null`). Otherwise, or with a trailing slash, it is a folder in which each
attempt gets its own file.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import os

from jobmon.agent import trust

#: Attempts per log folder.
LOG_SHARD_SIZE = 1_000
FILE_NAME_CHARACTERS_MAX = 60
LOG_TAIL_BYTES_MAX = 10 * 1024  # as in `jobmon.core.constants`; a test compares them
ERROR_LINE_CHARACTERS_MAX = 500
_DEVICES = "/dev/"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Identity = tuple[int, int]


def file_stem(name: str, attempt: int) -> str:
    """Return the name of an attempt's output files, without folder and suffix."""
    return f"{name.replace('/', '_')[:FILE_NAME_CHARACTERS_MAX]}.{attempt}"


def is_file(value: str) -> bool:
    """Return whether a value of `stdout` or `stderr` names a file rather than a folder.

    >>> is_file("/logs/all.log"), is_file("/dev/null"), is_file("/logs"), is_file("/logs/v1.2"), is_file("/logs/a.d/")
    (True, True, False, False, False)
    """
    stem, _, extension = value.rpartition("/")[2].rpartition(".")
    return value.startswith(_DEVICES) or bool(stem.strip(".") and extension and not extension.isdigit())


def output_files(asked: Mapping[str, Any], name: str, attempt: int, log_folder: str) -> tuple[str, str]:
    """Return the paths for standard output and standard error: one file for both unless both are given.

    Args:
        asked: the requested resources, which may include `stdout` and `stderr`.
        name: name of the task.
        attempt: ID of the attempt.
        log_folder: the log folder of the workflow.
    """
    stdout, stderr = asked.get("stdout"), asked.get("stderr")
    stem = file_stem(name, attempt)
    if stdout and stderr:
        return _path(stdout, f"{stem}.out"), _path(stderr, f"{stem}.err")
    path = _path(stdout or stderr or f"{log_folder}/{attempt // LOG_SHARD_SIZE}/", f"{stem}.log")
    return path, path


def _path(value: str, name: str) -> str:
    return value if is_file(value) else f"{value.rstrip('/')}/{name}"


def _is_of_one_attempt(path: str) -> bool:
    """Return whether a file is named after one attempt; other files may be shared by several attempts."""
    parts = path.rsplit(".", 2)
    return len(parts) == 3 and parts[1].isdigit() and parts[2] in ("log", "out", "err")


def opened(stdout: str, stderr: str | None) -> tuple[int, int]:
    """Open output files for appending: new ones, or ones that attempts share. Create missing folders.

    Args:
        stdout: path of the file for standard output.
        stderr: path of the file for standard error; None: the same file.

    Returns:
        Descriptors for stdout and stderr; the same one twice if they share a file.

    Raises:
        Untrusted: another user may have put something there.
        OSError: a file cannot be created; `filename` names it.
    """
    first = _opened(stdout)
    if stderr is None or stderr == stdout:
        return first, first
    try:
        return first, _opened(stderr)
    except OSError:
        os.close(first)
        raise


def _opened(path: str) -> int:
    create = trust.new_file if _is_of_one_attempt(path) else trust.append_file
    try:
        return create(path)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not folder or os.path.isdir(folder):
            raise
    except OSError as error:
        error.filename = path
        raise
    try:
        trust.make_folders(folder)
    except OSError as error:
        error.filename = path
        raise
    return create(path)


def identity(descriptor: int) -> Identity:
    """Return the device and inode of an open file: in a shared folder, others can put another file under its name."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def tail(
    stdout: str,
    stderr: str | None,
    length_max: int = LOG_TAIL_BYTES_MAX,
    written: tuple[Identity | None, Identity | None] = (None, None),
) -> bytes:
    """Return the last bytes of the output; of separate files those of stderr, unless it is empty.

    Args:
        stdout: path of the file for standard output.
        stderr: path of the file for standard error; None: the same file.
        length_max: maximum number of bytes.
        written: the files that were written, of stdout and stderr; None: not known.
    """
    if stderr is not None and stderr != stdout and (content := last_bytes(stderr, length_max, written[1])):
        return content
    return last_bytes(stdout, length_max, written[0])


def last_bytes(path: str, length_max: int = LOG_TAIL_BYTES_MAX, written: Identity | None = None) -> bytes:
    """Return the last bytes of a file; empty if it cannot be read, is not ours, or is not the one that was written."""
    try:
        descriptor = trust.open_own(path, written)
    except OSError:
        return b""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, length_max, max(0, size - length_max)) if size else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def tail_text(content: bytes) -> str:
    """Return the end of an output as text; replace invalid UTF-8, and NUL bytes, which databases reject."""
    return content[-LOG_TAIL_BYTES_MAX:].decode("utf-8", errors="replace").replace("\0", "\ufffd")


def last_line(tail: str) -> str:
    """Return the last line of an output that is not empty, cut to `ERROR_LINE_CHARACTERS_MAX`."""
    lines = tail.rstrip().rsplit("\n", 1)
    return lines[-1].strip()[:ERROR_LINE_CHARACTERS_MAX]
