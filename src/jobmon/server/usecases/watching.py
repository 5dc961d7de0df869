"""Who looks at a cluster for all distributors of this server, and what it saw.

A distributor that wants a newer view than there is asks; the server tells one at a time to look, and hands what it saw
to those who ask later. While nobody else has asked for a while the view stays with whoever looked. Whoever was told to
look and says nothing is passed over after the time that it named itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.transaction import to_json

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

PARTICIPANTS_MAX: Final = 1_000
HOLDER_CHARACTERS_MAX: Final = 255
SCOPE_CHARACTERS_MAX: Final = 255
VIEW_CHARACTERS_MAX: Final = 32 * 1024 * 1024
PROBLEM_CHARACTERS_MAX: Final = 2_000
SECONDS_MAX: Final = 3_600.0
#: While a cluster does not answer, pauses are as long as half the time since it last did, at most this.
PAUSE_SECONDS_MAX: Final = 60.0
_PAUSE_SHARE: Final = 0.5


@dataclass(slots=True)
class _Watch:
    """The row of a cluster and a scope."""

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
        """Return how old the last look has to be, whoever asks."""
        if self.problem_at is None:
            return 0.0
        return min(PAUSE_SECONDS_MAX, _PAUSE_SHARE * (now - self.problem_at) / 1e6)

    def is_looked_at(self, now: int, holder: str) -> bool:
        """Say whether somebody else is looking just now."""
        return self.holder not in (None, holder) and now < self.expires_at

    def begins_at(self, now: int, holder: str) -> int:
        """Return when a look begins at the earliest: whoever was told so already may have begun.

        It asks again where it did not hear the answer, and what it asked before may come again late.
        """
        return self.began_at if self.holder == holder and now < self.expires_at else now


def watch(tx: Transaction, cluster_name: str, request: WatchRequest) -> WatchResponse:
    """Tell a distributor to look, or what was seen; see the wire module."""
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
        view=row.view if row.number > request.known and not row.problem else None,  # a failed look shows nothing new
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
    """Return who wants to know, from when on, until when that holds; whoever asks is among them."""
    known = {who: (since, until) for who, (since, until) in json.loads(row.participants).items() if until >= tx.now}
    known.pop(request.holder, None)
    if len(known) >= PARTICIPANTS_MAX:
        raise InvalidValue(f"holder: at most {PARTICIPANTS_MAX} distributors watch one cluster.")
    return {**known, request.holder: (request.since, tx.now + int(request.silence * 1e6))}


def view(tx: Transaction, cluster_name: str, request: ViewRequest) -> ViewResponse:
    """Take what a look brought. From whoever was passed over meanwhile, and of an older look, nothing is taken."""
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
    cluster_id = tx.value("SELECT id FROM cluster WHERE name = :name", name=cluster_name)
    if cluster_id is None:
        raise NotFound.of("cluster", repr(cluster_name))
    tx.run(
        """
        INSERT INTO cluster_watch (cluster_id, scope, began_at, expires_at, number, looked_at, view_since, problem,
            participants)
        VALUES (:id, :scope, 0, 0, 0, 0, 0, '', '{}') ON CONFLICT DO NOTHING
        """,
        id=cluster_id,
        scope=scope,
    )
    row = tx.row(
        """
        SELECT cluster_id, scope, holder, began_at, expires_at, number, looked_at, view, view_since, problem,
            problem_at, participants
        FROM cluster_watch WHERE cluster_id = :id AND scope = :scope FOR UPDATE
        """,
        id=cluster_id,
        scope=scope,
    )
    assert row is not None
    return _Watch(*row)


def _write(tx: Transaction, row: _Watch, values: dict[str, object]) -> None:
    columns = ", ".join(f"{column} = :{column}" for column in values)
    tx.run(
        f"UPDATE cluster_watch SET {columns} WHERE cluster_id = :cluster AND scope = :scope",
        cluster=row.cluster_id,
        scope=row.scope,
        **values,
    )
