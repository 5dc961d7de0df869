"""A connection to PostgreSQL that sends statements without waiting for their results until one result is needed.

Each wait costs two switches between processes, or a round trip of the network: more than most statements take. So a
statement whose result nobody needs is only queued (`send`), and goes out together with the next one that needs its
result (`execute`): `BEGIN`, three updates, the next query. PostgreSQL executes them in order, and skips all that follow
a failed one until the next `execute`, which raises the error of the failed one.

This is libpq's pipeline mode, used directly: a cursor of psycopg takes three times as long, and twice that in its own
pipeline mode. Values are sent as text, whose types PostgreSQL infers from the statement's casts.
"""

from __future__ import annotations

import contextlib
import itertools
import select as selecting
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from psycopg import DataError, InternalError, OperationalError, adapt, errors
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg.pq.abc import PGresult

#: Number of prepared statements of a connection: more than a server has. Others are planned at each execution.
PREPARED_MAX: Final = 2_000

_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)
_SYNC: Final = ExecStatus.PIPELINE_SYNC


class Pipeline:
    """A psycopg connection in libpq's pipeline mode, with the part of a cursor's interface that sessions use.

    Args:
        connection: the connection, outside a transaction and with `autocommit`; nothing else may use it.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._libpq.enter_pipeline_mode()
        self._loaders = adapt.Transformer(connection)
        #: Text of a statement -> the name under which it is prepared.
        self._prepared: dict[str, bytes] = {}
        self._names = itertools.count()
        #: What was sent and not answered: a statement (""), the text of one to prepare, or the end of a batch (None).
        self._unanswered: deque[str | None] = deque()
        self._result: PGresult | None = None
        self._readable = selecting.poll()
        self._readable.register(self._libpq.socket, selecting.POLLIN)

    @property
    def rowcount(self) -> int:
        """Number of rows that the last executed statement changed or returned."""
        assert self._result is not None
        return self._result.command_tuples or 0

    def send(self, text: str, values: Sequence[Any] = (), *, prepare: bool = True) -> None:
        """Queue a statement whose result nobody needs; an error is raised by the next `execute`.

        Args:
            text: the statement, with parameters `$1`, `$2` ...
            values: of the parameters.
            prepare: keep its plan; not for texts that differ from one execution to the next.
        """
        encoded = [None if value is None else _encoded(value) for value in values]
        name = self._name(text) if prepare else None
        if name is None:
            self._libpq.send_query_params(text.encode(), encoded)
        else:
            self._libpq.send_query_prepared(name, encoded)
        self._unanswered.append("")

    def execute(self, text: str, values: Sequence[Any] = (), *, prepare: bool = True) -> Pipeline:
        """Run a statement after all that were queued, and wait for its result; see `send` for the arguments."""
        self.send(text, values, prepare=prepare)
        self.settle()
        return self

    def executemany(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """Queue a statement for each row of values."""
        for row in rows:
            self.send(text, row)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows of the last executed statement, once: a session that waits for its next use keeps none."""
        found, self._result = self._result, None
        assert found is not None
        self._loaders.set_pgresult(found)
        rows = self._loaders.load_rows(0, found.ntuples, tuple)
        self._loaders.set_pgresult(None)
        return rows

    def commit(self) -> None:
        """Commit, together with all that was queued, and wait until it is durable."""
        self.execute("COMMIT")
        assert self._result is not None
        if self._result.command_status != b"COMMIT":  # what failed before was ignored, and PostgreSQL rolled back
            raise InternalError(f"PostgreSQL answered COMMIT with {self._result.command_status!r}")

    def finish(self) -> None:
        """Have all that was queued executed, without waiting for it."""
        self._libpq.pipeline_sync()
        self._unanswered.append(None)

    def rollback(self) -> None:
        """Discard the transaction, if there is one."""
        if self._unanswered:
            with contextlib.suppress(errors.Error):  # what failed is discarded
                self.settle()
        if self._libpq.transaction_status != TransactionStatus.IDLE:
            self.execute("ROLLBACK")

    def copy(self, into: str, rows: Iterable[Sequence[Any]]) -> int:
        """Insert rows with COPY, after all that were queued; return their number.

        Args:
            into: the table and, in parentheses, its columns.
            rows: the values.
        """
        self.settle()
        self._libpq.exit_pipeline_mode()  # where COPY does not exist
        try:
            with self._connection.cursor() as cursor:
                with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
                return int(cursor.rowcount)
        finally:
            if self._libpq.status != ConnStatus.BAD:
                self._libpq.enter_pipeline_mode()

    def settle(self) -> None:
        """Wait for the results of everything that was sent.

        Raises:
            psycopg.Error: that of the first statement that failed.
        """
        self.finish()
        failure: Exception | None = None
        while self._unanswered:
            sent = self._unanswered[0]
            result = self._next_result()
            if result is None or (result.status == _SYNC) != (sent is None):
                raise self._lost()
            self._unanswered.popleft()
            if sent is None:
                continue
            self._result = result
            if result.status in _FAILED:
                failure = failure or self._error_of(result)
                self._prepared.pop(sent, None)
            if self._next_result() is not None:  # which marks the end of a statement's results
                raise self._lost()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Do nothing: the connection is closed by its owner."""

    def _name(self, text: str) -> bytes | None:
        """Return the name of a prepared statement, which this may queue; None: there are too many."""
        name = self._prepared.get(text)
        if name is None and len(self._prepared) < PREPARED_MAX:
            name = self._prepared[text] = b"s%d" % next(self._names)
            self._libpq.send_prepare(name, text.encode())
            self._unanswered.append(text)
        return name

    def _next_result(self) -> PGresult | None:
        """Wait for the next result; None ends the results of a statement."""
        libpq = self._libpq
        while libpq.is_busy():
            if libpq.flush():  # more than the socket takes at once; PostgreSQL may have to send before it receives
                self._wait_to_send()
            else:
                self._readable.poll()
            libpq.consume_input()
        found: PGresult | None = libpq.get_result()
        return found

    def _wait_to_send(self) -> None:
        both = selecting.poll()
        both.register(self._libpq.socket, selecting.POLLIN | selecting.POLLOUT)
        both.poll()

    def _error_of(self, result: PGresult) -> Exception:
        if result.status == ExecStatus.PIPELINE_ABORTED:
            return errors.PipelineAborted("an earlier statement failed")
        error: Exception = errors.error_from_result(result, encoding="utf-8")
        if self._libpq.status == ConnStatus.BAD and not getattr(error, "sqlstate", None):
            return OperationalError(str(error))
        return error

    def _lost(self) -> OperationalError:
        """Return the error of a connection that does not answer as it should."""
        return OperationalError(self._libpq.get_error_message() or "the connection is lost")


def _encoded(value: Any) -> bytes:
    """Return the text of a value that is not None, as PostgreSQL reads it."""
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return value.encode()  # type: ignore[no-any-return]
    if kind is int:
        return b"%d" % value
    if kind is list:
        return _array(value).encode()
    return _word(value).encode()


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str):
        if "\0" in value:
            raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return value + ""  # of an enumeration: its value
    if isinstance(value, int):
        return str(int(value))
    return str(value)


def _array(items: list[Any]) -> str:
    """Return the text of an array."""
    kinds = set(map(type, items))
    if kinds == {int}:
        return f"{{{','.join(map(str, items))}}}"
    return f"{{{','.join(map(_item, items))}}}"


def _item(item: Any) -> str:
    if item is None:
        return "NULL"
    text = _word(item)
    if isinstance(item, str):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return text
