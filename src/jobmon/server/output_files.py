"""Read the output files of attempts: a range, or the lines that match a search. Only the local server does this.

Messages name these files, so they are opened defensively: every folder on the path is entered separately, a link is
followed only if it is ours or root's, the last component must not be a link, and the file must be a regular file of
ours. Within the data folder only `logs` is entered: the rest holds secrets. A shared server opens no file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.agent import trust
from jobmon.server.problems import InvalidValue

if TYPE_CHECKING:
    from pathlib import Path

#: Maximum size of one response and of one search; a longer file takes several requests.
PART_BYTES_MAX: Final = 256 * 1024
SEARCH_BYTES_MAX: Final = 64 * 1024 * 1024
MATCHES_MAX: Final = 200
#: Maximum number of bytes of a matching line.
LINE_BYTES_MAX: Final = 400
WORD_CHARACTERS_MAX: Final = 200
#: Consecutive search blocks overlap by this many bytes, so that a match across their border is found.
_OVERLAP_BYTES: Final = 4 * WORD_CHARACTERS_MAX
_BLOCK_BYTES: Final = 1024 * 1024
#: A UTF-8 character has at most this many bytes after its first.
_CONTINUATIONS_MAX: Final = 3
#: Matches the first error of a log.
ERRORS: Final = re.compile(
    rb"\b(?:\w*error|\w*exception|traceback|fatal|panic|segmentation fault|core dumped|out of memory|killed"
    rb"|command not found|no such file or directory|permission denied|cannot)\b",
    re.IGNORECASE,
)
_ENTER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOGS: Final = "logs"


class Unreadable(OSError):
    """An output file cannot be shown; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file from `start` on; the next part begins at `end`."""

    size: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """The position of a match, and the text of its line."""

    at: int
    line: str


@dataclass(frozen=True, slots=True)
class Found:
    """Matches in order. `next`: where to continue the search; None: the end of the file was reached."""

    size: int
    matches: list[Match]
    next: int | None


class OutputFiles:
    """Opens output files safely.

    Args:
        data: the data folder, of which only `logs` is entered.
    """

    def __init__(self, data: Path) -> None:
        self._data = data

    def part(self, path: str, start: int, most: int) -> Part:
        """Return a range of a file.

        Args:
            path: path of the file.
            start: the first byte; a negative number counts from the end.
            most: maximum number of bytes.

        Raises:
            InvalidValue: `most` is out of range.
            Unreadable: the file cannot be shown.
        """
        if not 0 < most <= PART_BYTES_MAX:
            raise InvalidValue(f"most: must be from 1 to {PART_BYTES_MAX} bytes, not {most}.")
        with os.fdopen(self._open(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = min(max(size + start, 0) if start < 0 else start, size)
            content = _read(file.fileno(), most, first)
        text, skipped, left = _decoded(content, at_start=first == 0)
        return Part(size, first + skipped, first + len(content) - left, text)

    def search(self, path: str, word: str, start: int) -> Found:
        """Return the lines after `start` that contain a word, or that look like an error if the word is empty.

        Args:
            path: path of the file.
            word: what to search for, ignoring case.
            start: the first byte.

        Raises:
            InvalidValue: the word is too long.
            Unreadable: the file cannot be shown.
        """
        if len(word) > WORD_CHARACTERS_MAX:
            raise InvalidValue(f"word: has {len(word)} characters; at most {WORD_CHARACTERS_MAX}.")
        pattern = re.compile(re.escape(word.encode()), re.IGNORECASE) if word else ERRORS
        with os.fdopen(self._open(path), "rb") as file:
            return _search(file.fileno(), pattern, max(start, 0))

    def _open(self, path: str) -> int:
        try:
            return self._opened(path)
        except Unreadable:
            raise
        except OSError as error:
            raise Unreadable(error.errno, f"{path} cannot be read here: {os.strerror(error.errno or 0)}.") from error

    def _opened(self, path: str) -> int:
        if not path.startswith("/"):
            raise Unreadable(errno.EINVAL, f"{path} is not an absolute path.")
        walk = _Walk(path, _identity(os.stat(self._data)))
        try:
            while walk.waiting:
                file = walk.step()
                if file is not None:
                    return file
            raise Unreadable(errno.EISDIR, f"{path} is a folder.")
        finally:
            walk.close()


class _Walk:
    """Walks the path to a file, folder by folder.

    Args:
        path: path of the file.
        data: device and inode of the data folder.
    """

    def __init__(self, path: str, data: tuple[int, int]) -> None:
        self._path = path
        self._data = data
        self._links = 0
        self._folders = [os.open("/", _ENTER)]
        self.waiting = _parts(path)

    def step(self) -> int | None:
        """Enter the next folder, or return the opened file for the last component."""
        name = self.waiting.pop()
        if name == "..":
            if len(self._folders) > 1:
                os.close(self._folders.pop())
            return None
        here = self._folders[-1]
        if _identity(os.fstat(here)) == self._data and (name != _LOGS or not self.waiting):
            raise Unreadable(errno.EACCES, f"{self._path} is in the data folder, outside its logs.")
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            self._follow(name, found.st_uid)
        elif self.waiting:
            self._folders.append(os.open(name, _ENTER, dir_fd=here))
        else:
            return _file(name, here, self._path)
        return None

    def _follow(self, name: str, owner: int) -> None:
        self._links += 1
        if not self.waiting or self._links > trust.LINKS_MAX:
            raise Unreadable(errno.ELOOP, f"{self._path} is a symbolic link, or leads through too many of them.")
        if owner not in (0, os.geteuid()):
            raise Unreadable(errno.EACCES, f"{self._path} leads through a symbolic link of another user.")
        target = os.readlink(name, dir_fd=self._folders[-1])
        if target.startswith("/"):
            while len(self._folders) > 1:
                os.close(self._folders.pop())
        self.waiting += _parts(target)

    def close(self) -> None:
        """Close all folders."""
        for folder in self._folders:
            os.close(folder)


def _parts(path: str) -> list[str]:
    """Return the components of a path in reverse order."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _file(name: str, folder: int, path: str) -> int:
    file = os.open(name, _READ, dir_fd=folder)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        problem = "is not a regular file of yours"
    elif trust.may_be_planted(found, folder):
        problem = "has several names (hard links), which others may have made"
    else:
        return file
    os.close(file)
    raise Unreadable(errno.EACCES, f"{path} {problem}.")


def _read(file: int, most: int, at: int) -> bytes:
    """Read this many bytes; fewer only at the end of the file."""
    parts: list[bytes] = []
    while most > 0 and (part := os.pread(file, most, at)):
        parts.append(part)
        at += len(part)
        most -= len(part)
    return b"".join(parts)


def _decoded(content: bytes, *, at_start: bool) -> tuple[str, int, int]:
    """Return the whole characters, and the number of bytes of incomplete ones at the beginning and at the end."""
    skipped = 0
    if not at_start:
        while skipped < min(_CONTINUATIONS_MAX, len(content)) and content[skipped] & 0xC0 == 0x80:
            skipped += 1
    left = 0
    for back in range(1, min(_CONTINUATIONS_MAX, len(content) - skipped) + 1):
        byte = content[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        left = back if wanted > back else 0
        break
    return content[skipped : len(content) - left].decode(errors="replace"), skipped, left


def _search(file: int, pattern: re.Pattern[bytes], start: int) -> Found:
    size = os.fstat(file).st_size
    end = min(size, start + SEARCH_BYTES_MAX)
    matches: list[Match] = []
    at, line_end = start, -1
    while at < end:
        block = _read(file, min(_BLOCK_BYTES, size - at) + _OVERLAP_BYTES, at)
        for match in pattern.finditer(block):
            if match.start() >= _BLOCK_BYTES or at + match.start() <= line_end:
                continue  # the next block has it, or its line is already listed
            if len(matches) == MATCHES_MAX:
                return Found(size, matches, at + match.start())
            begin = block.rfind(b"\n", max(0, match.start() - LINE_BYTES_MAX), match.start()) + 1
            begin = max(begin, match.start() - LINE_BYTES_MAX // 2)
            over = block.find(b"\n", match.end())
            over = len(block) if over < 0 else over
            line_end = at + over
            matches.append(
                Match(at + match.start(), block[begin : min(over, begin + LINE_BYTES_MAX)].decode(errors="replace"))
            )
        at += _BLOCK_BYTES
    return Found(size, matches, end if end < size else None)
