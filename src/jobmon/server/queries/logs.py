"""Return ranges of an attempt's output files, and search in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import LogMatch, LogMatches, LogPart
from jobmon.server.constructs import select
from jobmon.server.models import task_instance
from jobmon.server.output_files import OutputFiles, Unreadable
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session

STREAMS: Final = ("stdout", "stderr")
_NO_FILES: Final = "A shared server does not read output files. Type: jobmon task logs {task_id}"
_NO_PATH: Final = "It has no output file yet."


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which bytes to return.

    Args:
        stream: "stdout" or "stderr".
        start: the first byte; a negative number counts from the end.
        most: maximum number of bytes.
    """

    stream: str = "stdout"
    start: int = 0
    most: int = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSearchQuery:
    """What to search for.

    Args:
        stream: "stdout" or "stderr".
        word: a text, ignoring case; "": signs of errors.
        start: the first byte.
    """

    stream: str = "stdout"
    word: str = ""
    start: int = 0


@statement
def _files() -> Select[Any]:
    ti = task_instance.c
    return select(ti.task_id, ti.stdout, ti.stderr).where(ti.id == param("id"))


def _path(session: Session, attempt_id: int, stream: str, files: OutputFiles | None) -> tuple[str, str]:
    """Return the path of a stream, and why it cannot be read; one of them is empty."""
    if stream not in STREAMS:
        raise InvalidValue(f"stream: must be stdout or stderr, not {stream!r}.")
    row = session.row(_files, id=attempt_id)
    if row is None:
        raise NotFound.of("attempt", attempt_id)
    path = row[1 + STREAMS.index(stream)] or ""
    if files is None:
        return "", _NO_FILES.format(task_id=row[0])
    return path, "" if path else _NO_PATH


def log_part(session: Session, attempt_id: int, query: LogQuery, files: OutputFiles | None) -> LogPart:
    """Return a range of an attempt's output, as far as it exists.

    Raises:
        InvalidValue: the stream or the range is wrong.
        NotFound: the attempt does not exist.
    """
    path, problem = _path(session, attempt_id, query.stream, files)
    if files is not None and path:
        try:
            found = files.part(path, query.start, query.most)
        except Unreadable as error:
            problem = str(error.strerror)
        else:
            return LogPart(path=path, size=found.size, start=found.start, end=found.end, text=found.text, problem="")
    return LogPart(path=path, size=0, start=0, end=0, text="", problem=problem)


def log_matches(session: Session, attempt_id: int, query: LogSearchQuery, files: OutputFiles | None) -> LogMatches:
    """Return the positions of a text in an attempt's output.

    Raises:
        InvalidValue: the stream or the word is wrong.
        NotFound: the attempt does not exist.
    """
    path, problem = _path(session, attempt_id, query.stream, files)
    if files is not None and path:
        try:
            found = files.search(path, query.word, query.start)
        except Unreadable as error:
            problem = str(error.strerror)
        else:
            matches = [LogMatch(at=one.at, line=one.line) for one in found.matches]
            return LogMatches(size=found.size, matches=matches, next=found.next, problem="")
    return LogMatches(size=0, matches=[], next=None, problem=problem)
