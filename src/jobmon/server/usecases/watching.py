"""Share views of a cluster among all distributors of one user.

A distributor that needs a newer view than the stored one sends a request. The server lets one distributor at a time
poll the cluster, and gives the resulting view to later requests. As long as no other distributor sends requests, the
view stays with the one that polled. A distributor that was told to poll and does not respond is skipped after the
silence interval that it gave.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.credentials import OWNER
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
from jobmon.server.constructs import select, update
from jobmon.server.lookups import find_cluster
from jobmon.server.models import cluster_watch
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import param, statement, statements
from jobmon.server.transaction import to_json

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select, Update

    from jobmon.server.transaction import Transaction

PARTICIPANTS_MAX: Final = 1_000
HOLDER_CHARACTERS_MAX: Final = 255
SCOPE_CHARACTERS_MAX: Final = 255
VIEW_CHARACTERS_MAX: Final = 32 * 1024 * 1024
PROBLEM_CHARACTERS_MAX: Final = 2_000
SECONDS_MAX: Final = 3_600.0
#: While a cluster does not respond, polls pause for half the time since it last responded, up to this long.
PAUSE_SECONDS_MAX: Final = 60.0
_PAUSE_SHARE: Final = 0.5


@dataclass(slots=True)
class _Watch:
    """The stored watch of a cluster and a scope."""

    cluster_id: int
    scope: str
    holder: str | None
    began_at: int
    expires_at: int
    number: int
    looked_at: int
    view: str | None
    view_since: float
    problem: str
    problem_at: int | None
    participants: str

    def pause_seconds(self, now: int) -> float:
        """Return how old the last poll must be before any distributor polls again, seconds."""
        if self.problem_at is None:
            return 0.0
        return min(PAUSE_SECONDS_MAX, _PAUSE_SHARE * (now - self.problem_at) / 1e6)

    def is_looked_at(self, now: int, holder: str) -> bool:
        """Return whether another distributor is polling."""
        return self.holder not in (None, holder) and now < self.expires_at

    def begins_at(self, now: int, holder: str) -> int:
        """Return the earliest time at which a poll starts: a distributor that was told to poll may have started.

        It repeats the request if the response was lost, and its earlier request may arrive again late.
        """
        return self.began_at if self.holder == holder and now < self.expires_at else now


def _is_watch() -> list[ColumnElement[bool]]:
    return [cluster_watch.c.cluster_id == param("cluster"), cluster_watch.c.scope == param("scope")]


@statement
def _watch_of_cluster() -> Select[Any]:
    c = cluster_watch.c
    return select(
        *(c.cluster_id, c.scope, c.holder, c.began_at, c.expires_at, c.number, c.looked_at, c.view, c.view_since),
        *(c.problem, c.problem_at, c.participants),
    ).where(*_is_watch())


@statements
def _change_watch(names: tuple[str, ...]) -> Update:
    """Change these columns of a watch."""
    return update(cluster_watch).values({name: param(name) for name in names}).where(*_is_watch())


#: A watch before the first poll.
_NEW_WATCH: Final = {
    "began_at": 0,
    "expires_at": 0,
    "number": 0,
    "looked_at": 0,
    "view_since": 0.0,
    "problem": "",
    "participants": "{}",
}


def watch(tx: Transaction, cluster_name: str, request: WatchRequest) -> WatchResponse:
    """Tell a distributor to poll, or give it the stored view; see the wire module.

    Raises:
        InvalidValue: a value is out of range, or too many distributors watch the cluster.
        NotFound: the cluster does not exist.
    """
    _check(request)
    row = _row(tx, cluster_name, request.scope)
    participants = _participants(tx, row, request)
    is_shared = len(participants) > 1
    age = max(0.0, (tx.now - row.looked_at) / 1e6)
    is_old = age >= max(request.interval, row.pause_seconds(tx.now))
    is_due = is_old and not row.is_looked_at(tx.now, request.holder)
    values: dict[str, object] = {"participants": to_json(participants)}
    if is_due:
        expires_at = tx.now + int(request.silence * 1e6)
        values |= {
            "holder": request.holder,
            "began_at": row.begins_at(tx.now, request.holder),
            "expires_at": expires_at,
        }
    _write(tx, row, values)
    if is_due:
        since = min(since for since, _ in participants.values())
        return WatchResponse(look=True, since=since, number=row.number, is_shared=is_shared)
    return WatchResponse(
        number=row.number,
        view=row.view if row.number > request.known and not row.problem else None,  # a failed poll shows nothing new
        view_since=row.view_since,
        age=age,
        is_shared=is_shared,
        problem=row.problem,
    )


def _check(request: WatchRequest) -> None:
    if not 0 < len(request.holder) <= HOLDER_CHARACTERS_MAX:
        raise InvalidValue(f"holder: must have from 1 to {HOLDER_CHARACTERS_MAX} characters.")
    if not (0 <= request.interval <= SECONDS_MAX and 0 < request.silence <= SECONDS_MAX):
        raise InvalidValue(f"interval, silence: must be from 0 to {SECONDS_MAX:g} s.")


def _participants(tx: Transaction, row: _Watch, request: WatchRequest) -> dict[str, tuple[float, int]]:
    """Return holder -> (since when it needs completed jobs, until when it counts), including the sender."""
    known = {who: (since, until) for who, (since, until) in json.loads(row.participants).items() if until >= tx.now}
    known.pop(request.holder, None)
    if len(known) >= PARTICIPANTS_MAX:
        raise InvalidValue(f"holder: at most {PARTICIPANTS_MAX} distributors may watch one cluster.")
    return {**known, request.holder: (request.since, tx.now + int(request.silence * 1e6))}


def view(tx: Transaction, cluster_name: str, request: ViewRequest) -> ViewResponse:
    """Store the view of a distributor that polled, unless it was skipped in the meantime or the poll is an older one.

    Raises:
        InvalidValue: the view is too long.
        NotFound: the cluster does not exist.
    """
    if len(request.view or "") > VIEW_CHARACTERS_MAX:
        raise InvalidValue(f"view: at most {VIEW_CHARACTERS_MAX} characters.")
    row = _row(tx, cluster_name, request.scope)
    if row.holder != request.holder or request.after not in (None, row.number):
        return ViewResponse(number=row.number)
    values: dict[str, object] = {
        "holder": None,
        "looked_at": row.began_at,
        "problem": request.problem[:PROBLEM_CHARACTERS_MAX],
    }
    if request.problem:
        values["problem_at"] = row.problem_at if row.problem_at is not None else tx.now
        number = row.number
    else:
        number = row.number + 1
        values |= {"problem_at": None, "number": number, "view": request.view, "view_since": request.since}
    _write(tx, row, values)
    return ViewResponse(number=number)


def _row(tx: Transaction, cluster_name: str, scope: str) -> _Watch:
    if len(scope) > SCOPE_CHARACTERS_MAX:
        raise InvalidValue(f"scope: must have at most {SCOPE_CHARACTERS_MAX} characters.")
    cluster_id = find_cluster(tx, cluster_name)
    if cluster_id is None:
        raise NotFound.of("cluster", repr(cluster_name))
    scope = _own_scope(tx.principal, scope)
    names = ("cluster_id", "scope", *_NEW_WATCH)
    tx.insert_many(cluster_watch, names, [(cluster_id, scope, *_NEW_WATCH.values())], ignore=True)
    row = tx.row(_watch_of_cluster, cluster=cluster_id, scope=scope)
    assert row is not None
    return _Watch(*row)


def _own_scope(principal: str, scope: str) -> str:
    """Return the scope under which a principal's views are stored.

    A view decides what counts as done, so no user of a shared server may write or hold up the view of another.
    """
    return scope if principal == OWNER.name else hashlib.sha256(f"{principal}\n{scope}".encode()).hexdigest()


def _write(tx: Transaction, row: _Watch, values: dict[str, object]) -> None:
    tx.run(_change_watch(tuple(values)), cluster=row.cluster_id, scope=row.scope, **values)
