"""Undelivered reports on disk, one file each, kept until a server has recorded them.

They are in `<data folder>/reports/<workflow id>`, in folders that only we may enter (0700). A job that cannot use the
data folder has a private folder, named in its environment. A file name contains the attempt's ID and, if known, the
server's identity: `12-cafe.report`. A report that a server cannot accept is *set aside* under a longer name. It is
never deleted, and is resent only if the server may have changed (`.unknown-...`).

Works on bytes; imports only modules that workers load anyway (`python -I -S`).
"""

from __future__ import annotations

import os

from jobmon.agent import trust

FOLDER = "reports"
SUFFIX = ".report"
#: The variable that names the folder for reports of a job that cannot use the data folder.
JOB_FOLDER_VARIABLE = "JOBMON_JOB_FOLDER"
#: Suffix of a file whose content is not a report.
DAMAGED = ".damaged"
#: Suffix of a report that a server cannot read.
REFUSED = ".refused"
#: Suffix of a report whose attempt a server does not have, followed by the server's incarnation.
UNKNOWN = ".unknown-"
#: Maximum size of a report; larger files are not read.
FILE_BYTES_MAX = 1024 * 1024
#: Maximum number of files examined in one folder.
NAMES_MAX = 100_000
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


class Entry:
    """The information in a file name.

    Args:
        name: the file's name.
        attempt: ID of the attempt.
        identity: identity of the server that assigned the attempt; "": not known.
        unknown_to: incarnation of the server that had no such attempt; "": the report was not set aside.
    """

    __slots__ = ("attempt", "identity", "name", "unknown_to")

    def __init__(self, name: str, attempt: int, identity: str, unknown_to: str) -> None:
        self.name = name
        self.attempt = attempt
        self.identity = identity
        self.unknown_to = unknown_to


def entry_of(name: str) -> Entry | None:
    """Parse a file name; return None if it is not a report that may be sent."""
    stem, suffix, after = name.partition(SUFFIX)
    if not suffix or (after and not after.startswith(UNKNOWN)):
        return None
    attempt, _, identity = stem.partition("-")
    if not (attempt.isascii() and attempt.isdigit()):
        return None
    return Entry(name, int(attempt), identity, after.removeprefix(UNKNOWN))


def folder_of(data_folder: str, workflow_id: int | str) -> str:
    """Return the folder of a workflow's undelivered reports."""
    return os.path.join(data_folder, FOLDER, str(workflow_id))


def usable_folder(data_folder: str, environment: MutableMapping[str, str]) -> str:
    """Return the data folder or, if it cannot be used here, a private folder of this job.

    Args:
        data_folder: the data folder.
        environment: the job's environment; set to name the private folder once one exists.

    Raises:
        OSError: neither can be used.
    """
    try:
        return trust.private_folder(data_folder)
    except OSError:
        named = environment.get(JOB_FOLDER_VARIABLE)
    if named:
        return trust.private_folder(named)
    temporary = environment.get("TMPDIR") or "/tmp"
    folder = os.path.join(trust.resolved(temporary), f"jobmon-{os.geteuid()}-{os.urandom(8).hex()}")
    os.mkdir(folder, trust.PRIVATE_FOLDER_MODE)
    environment[JOB_FOLDER_VARIABLE] = folder
    return folder


def keep(data_folder: str, workflow_id: int | str, attempt: int, content: bytes, identity: str = "") -> str:
    """Write a report durably to disk.

    Args:
        data_folder: the data folder; created if missing.
        workflow_id: the workflow of the attempt.
        attempt: ID of the attempt.
        content: the encoded report.
        identity: identity of the server that assigned the attempt; "": not known.

    Returns:
        The path of the report.

    Raises:
        OSError: the report cannot be written there, or others could change it there.
    """
    name = f"{attempt}-{word(identity)}{SUFFIX}" if word(identity) else f"{attempt}{SUFFIX}"
    folder = _made(data_folder, workflow_id)
    try:
        _write(folder, name, content)
    finally:
        os.close(folder)
    return os.path.join(folder_of(data_folder, workflow_id), name)


def _write(folder: int, name: str, content: bytes) -> None:
    temporary = f"{name}.new"
    _unlink(temporary, folder)
    file = os.open(temporary, _WRITE, 0o600, dir_fd=folder)
    try:
        try:
            os.fchmod(file, 0o600)
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _unlink(temporary, folder)
        raise


def _made(data_folder: str, workflow_id: int | str) -> int:
    """Return a descriptor of the folder of a workflow's reports, creating the folder if it is missing."""
    outer = os.open(trust.private_folder(data_folder), _ENTER)
    try:
        middle = _entered(outer, FOLDER, os.path.join(data_folder, FOLDER))
        try:
            return _entered(middle, str(workflow_id), folder_of(data_folder, workflow_id))
        finally:
            os.close(middle)
    finally:
        os.close(outer)


def _entered(parent: int, name: str, path: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        is_new = True
    except FileExistsError:
        is_new = False
    folder = os.open(name, _ENTER, dir_fd=parent)
    try:
        if is_new:
            os.fchmod(folder, 0o700)  # regardless of the umask
        trust.require_private(os.fstat(folder), path)
    except OSError:
        os.close(folder)
        raise
    return folder


def entries(data_folder: str, workflow_id: int | str) -> list[Entry]:
    """Return the reports of a workflow that may be sent, ordered by attempt; none if the folder is missing.

    Raises:
        OSError: the folder cannot be read, or others could have written there.
    """
    path = folder_of(data_folder, workflow_id)
    try:
        folder = os.open(trust.resolved(path), _ENTER)
    except FileNotFoundError:
        return []
    try:
        trust.require_private(os.fstat(folder), path)
        return sorted(_entries(folder), key=lambda one: (one.attempt, one.name))
    finally:
        os.close(folder)


def entries_beside_logs(folder: str) -> list[Entry]:
    """Return the reports that earlier versions left beside logs; none if others may write to the folder."""
    try:
        trust.require_folder(folder)
        return sorted(_entries(folder), key=lambda one: (one.attempt, one.name))
    except OSError:
        return []


def _entries(folder: int | str) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        for count, one in enumerate(found):
            if count >= NAMES_MAX:
                return
            if (entry := entry_of(one.name)) is not None:
                yield entry


def read(path: str) -> bytes:
    """Return the content of a report.

    Raises:
        OSError: the file cannot be read now, may have been written by others, or is larger than any report.
    """
    return trust.read_file(path, FILE_BYTES_MAX)


def set_aside(path: str, why: str) -> str:
    """Rename a report so that its name shows why it is not sent.

    Args:
        path: path of the report.
        why: DAMAGED, REFUSED, or `unknown_to(...)`.

    Returns:
        The new path.

    Raises:
        OSError: the file cannot be renamed now.
    """
    stem, suffix, _ = path.rpartition(SUFFIX)
    aside = f"{stem}{suffix}{why}"
    os.rename(path, aside)
    return aside


def take_back(path: str) -> str:
    """Undo `set_aside`; return the path of the report, which may now be sent again.

    Raises:
        OSError: the file cannot be renamed now.
    """
    stem, suffix, _ = path.rpartition(SUFFIX)
    os.rename(path, stem + suffix)
    return stem + suffix


def unknown_to(incarnation: str) -> str:
    """Return the suffix of a report whose attempt is unknown to this incarnation of a server."""
    return UNKNOWN + (word(incarnation) or "0")


def word(text: str) -> str:
    """Return the characters of a text that are allowed in a file name, at most 64."""
    return "".join(one for one in text if one.isascii() and one.isalnum())[:64]


def remove(path: str) -> None:
    """Remove a report if it still exists."""
    _unlink(path)


def _unlink(path: str, folder: int | None = None) -> None:
    try:
        os.unlink(path, dir_fd=folder)
    except OSError:
        return
