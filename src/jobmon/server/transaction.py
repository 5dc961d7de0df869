"""The environment of a use case: a session within a transaction, the time, the settings, and its effects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from jobmon.core.exceptions import ServerUnavailable
from jobmon.server.armed import ArmedSets
from jobmon.server.constructs import case, func, select, update
from jobmon.server.counting import StatusCounts
from jobmon.server.models import audit, logical_clock, task, task_instance, workflow, workflow_run
from jobmon.server.settings import Settings
from jobmon.server.sql import Session, param, statement, statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Select, Table, Update

#: Tables whose IDs also appear outside the database, such as in jobs, log files and delayed reports.
NUMBERED: Final = (workflow, task, workflow_run, task_instance)
#: The action in the audit trail that records the highest IDs before any of them is deleted.
START_PURGE: Final = "start purge"
#: The actor in the audit trail for changes that the server makes by itself.
SERVER: Final = "server"

_Answer = TypeVar("_Answer")
_encoder = msgspec.json.Encoder()


def to_json(value: Any) -> str:
    """Return the JSON text in which a value is stored."""
    return _encoder.encode(value).decode()


class Audience(StrEnum):
    """The component that a long poll of a workflow belongs to."""

    ORCHESTRATOR = "orchestrator"
    DISTRIBUTOR = "distributor"


#: What a long poll waits for: an audience and a workflow ID.
Topic = tuple[Audience, int]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The server's state that use cases need: settings, start time (microseconds), and armed tasks."""

    settings: Settings
    started_at: int
    armed: ArmedSets = field(default_factory=ArmedSets)


@dataclass(slots=True)
class Effects:
    """The effects of a transaction besides its rows: which topics to wake, and which late changes were ignored.

    `ended_runs`: runs that ended, with their final status. `failing`: workflows of which more tasks have failed.
    `measured_late`: workflows with ended attempts whose usage was reported late.
    """

    topics: set[Topic] = field(default_factory=set)
    ignored: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ended_runs: dict[int, str] = field(default_factory=dict)
    failing: list[int] = field(default_factory=list)
    measured_late: set[int] = field(default_factory=set)


@statement
def last_stamp() -> Select[Any]:
    """Select the logical time of the last change."""
    return select(logical_clock.c.stamp)


@statement
def _advance_stamp() -> Update:
    """Set the stamp to the time of day, but after the last one; nothing if another server process has become active."""
    last, now = logical_clock.c.stamp, param("now", logical_clock.c.stamp.type)
    later = case((last >= now, last + 1), else_=now)
    is_ours = logical_clock.c.epoch == param("epoch")
    return update(logical_clock).values(stamp=later).where(is_ours).returning(logical_clock.c.stamp)


@statement
def _keep_stamp() -> Update:
    """Lock the row that an activation updates."""
    return update(logical_clock).values(stamp=logical_clock.c.stamp).where(logical_clock.c.epoch == param("epoch"))


@statement
def _last_entry() -> Select[Any]:
    a = audit.c
    return select(a.id, a.details).where(
        a.id == select(a.id).where(a.workflow_id == param("workflow")).order_by(a.id.desc()).limit(1).scalar_subquery(),
        *(a.actor == param("actor"), a.action == param("action"), a.principal == param("principal")),
    )


@statement
def _set_details() -> Update:
    return update(audit).values(details=param("details")).where(audit.c.id == param("id"))


@statements
def _highest_id(table: Table) -> Select[Any]:
    return select(func.max(table.c.id))


@statement
def _last_purge() -> Select[Any]:
    """Select what the newest entry of a purge recorded."""
    a = audit.c
    of_purges = (a.workflow_id.is_(None), a.action == START_PURGE)
    return select(a.details).where(*of_purges).order_by(a.id.desc()).limit(1)


class Deposed(ServerUnavailable):
    """Another server has become the active one of the database: this one must not write any more."""


class Transaction(Session):
    """A session that is reused for one transaction after another. `now` is the time of day, in microseconds."""

    def __init__(self, connection: Any, dialect: str, surroundings: Surroundings) -> None:
        super().__init__(connection, dialect)
        self.settings = surroundings.settings
        self.started_at = self._committed_started_at = surroundings.started_at
        self.armed = surroundings.armed
        self.now = 0
        self.effects = Effects()
        #: Every change of the status or array of tasks must be noted here.
        self.counts = StatusCounts()
        #: The principal whose request is executed, for the audit trail.
        self.principal = SERVER
        #: Whether an urgent use case may do more now than what makes it urgent; see `server.writer`.
        self.has_time: Callable[[], bool] = lambda: True
        #: Which activation of a server process on this database is ours; always 0 on SQLite.
        self.epoch = 0
        self._stamp: int | None = None
        #: Table -> the highest ID that it ever had, if rows with such IDs were deleted. None: not read yet.
        self._highest: dict[str, int] | None = None

    def start(self, now: int, has_time: Callable[[], bool] = lambda: True) -> None:
        """Begin a new transaction."""
        self.now, self.effects, self.has_time = now, Effects(), has_time
        self.counts.clear()
        self.begin(writing=True)
        self.armed.begin(None if self.armed.is_begun else self.value(last_stamp))
        if self._highest is None or self._highest:
            self._highest = self._highest_deleted()

    def begin(self, *, writing: bool) -> None:
        """Start a database transaction."""
        self._stamp = None
        super().begin(writing=writing)

    def _highest_deleted(self) -> dict[str, int]:
        """Return the highest ID of each table that has deleted its highest rows, and none since that is higher."""
        if not self.reuses_ids:
            return {}
        highest = self._highest
        if highest is None:
            details = self.value(_last_purge)
            highest = {} if details is None else msgspec.json.decode(details)["highest"]
        return {
            table.name: highest[table.name]
            for table in NUMBERED
            if table.name in highest and (self.value(_highest_id(table)) or 0) <= highest[table.name]
        }

    def first_id(self, table: Table) -> int | None:
        """Return the ID that the next row must have so that no deleted ID is reused; None: the database chooses it."""
        highest = (self._highest or {}).get(table.name)
        if highest is None or (self.value(_highest_id(table)) or 0) >= highest:
            return None
        return highest + 1

    def keep_highest_ids(self) -> dict[str, int]:
        """Return the highest IDs, to be recorded in the audit trail; this process never reuses them from now on."""
        known = self._highest or {}
        found = {table.name: max(self.value(_highest_id(table)) or 0, known.get(table.name, 0)) for table in NUMBERED}
        self._highest = found if self.reuses_ids else {}
        return found

    def commit(self) -> None:
        """Make everything durable, including the status counts."""
        self.effects.failing = self.counts.failing()
        self.counts.write(self)
        self._require_active()
        super().commit()
        self.counts.settle()
        self._committed_started_at = self.started_at

    def rollback(self) -> None:
        """Discard everything since `start`."""
        self.armed.rollback()
        self.counts.clear()
        self.started_at = self._committed_started_at
        super().rollback()

    @property
    def stamp(self) -> int:
        """The logical time of all changes in this transaction: later than that of every earlier change."""
        if self._stamp is None:
            self._stamp = self.value(_advance_stamp, now=self.now, epoch=self.epoch)
            self._require(self._stamp is not None)
        return self._stamp

    @staticmethod
    def _require(is_active: bool) -> None:
        if not is_active:
            raise Deposed

    def _require_active(self) -> None:
        """Let no server process become active until this transaction is committed; rows that it wrote require that.

        Raises:
            Deposed: another one is active.
        """
        if self.epoch and self._has_written and self._stamp is None:
            self._require(bool(self.changed(_keep_stamp, epoch=self.epoch)))

    @property
    def known_until(self) -> int:
        """The logical time up to which all changes are visible here; this transaction's own changes may come after it.

        Several requests share a transaction and its stamp: the first reader must also receive what changed after it.
        """
        if self._stamp is not None:
            return self._stamp - 1
        return int(self.value(last_stamp))

    def wake(self, audience: Audience, workflow_id: int) -> None:
        """Wake the long polls of an audience of a workflow once this transaction is committed."""
        self.effects.topics.add((audience, workflow_id))

    def wake_all(self, workflow_id: int) -> None:
        """Wake all long polls of a workflow once this transaction is committed."""
        for audience in Audience:
            self.wake(audience, workflow_id)

    def audit(self, actor: str, action: str, workflow_id: int | None, **details: Any) -> None:
        """Record an action in the audit trail."""
        self.add(
            audit,
            at=self.now,
            actor=actor,
            action=action,
            workflow_id=workflow_id,
            details=to_json(details),
            principal=self.principal,
        )

    def audit_count(self, actor: str, action: str, workflow_id: int, **counts: int) -> None:
        """Record an action that takes many requests: consecutive requests become one entry with sums."""
        last = self.row(_last_entry, workflow=workflow_id, actor=actor, action=action, principal=self.principal)
        if last is None:
            self.audit(actor, action, workflow_id, **counts)
            return
        details = msgspec.json.decode(last[1])
        sums = {name: details.get(name, 0) + count for name, count in counts.items()}
        self.run(_set_details, details=to_json(details | sums), id=last[0])


def acting_for(tx: Transaction, principal: str, use_case: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """Run a use case on behalf of a principal."""
    tx.principal = principal
    try:
        return use_case(tx, *arguments)
    finally:
        tx.principal = SERVER
