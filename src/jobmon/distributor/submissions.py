"""Submissions that wait for a classic cluster, and when each is tried next. Pure: the time is passed in.

Attempts of one template with the same request share a *key*: the cluster's response to one applies to all. After a
setback its key waits; other keys do not:

* FULL: no more jobs fit. Retried as soon as our own jobs exit, with as many attempts as jobs exited; otherwise after
  doubling pauses, with one attempt, then two, four, ... Numbers that fit are remembered, others are not repeated.
* DEFERRED: the cluster could not accept it, for a reason that may be transient. Retried after doubling pauses until the
  patience is used up; then it is rejected.
* AWAY: no response. Nothing is tried until the pause has passed; nothing is ever rejected for this reason.

No attempt is charged while it waits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor import batch as translate
from jobmon.distributor.backoff import Backoff
from jobmon.distributor.inflight import NO_ARRAY, narrowed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

#: How long a submission that fails for an unknown reason is retried; default of the setting.
PATIENCE_SECONDS: Final = 600.0
#: Number of keys that fail in a row, without a success in between, after which all other keys wait as well.
FAILED_KEYS_MAX: Final = 3
#: Maximum number of attempts in one probe of a full cluster.
PROBE_ATTEMPTS_MAX: Final = 100_000
TEXTS_SHOWN_MAX: Final = 3


class Setback(Enum):
    """Why a submission is not possible now."""

    FULL = "full"
    DEFERRED = "deferred"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch, or the rest of one, that is to be submitted.

    Args:
        batch: the attempts to submit.
        first_step: step of its first attempt in the array that the server created from the whole batch.
        most: maximum number of attempts to try now; None: all.
        added_at: since when it has been waiting, monotonic seconds.
        key: shared with similar submissions; "": derived from the batch.
    """

    batch: LaunchBatch
    first_step: int = 0
    most: int | None = None
    added_at: float = 0.0
    key: str = ""

    def __post_init__(self) -> None:
        """Derive the key."""
        if not self.key:
            object.__setattr__(self, "key", key_of(self.batch))

    @property
    def is_array(self) -> bool:
        """Whether its steps match those of the server's array."""
        return self.batch.batch_number != NO_ARRAY

    def rest(self, wanted: set[int], *, as_array: bool) -> Submission:
        """Return a submission of only these attempts.

        Args:
            wanted: task instance ids.
            as_array: whether the last steps of an array can be submitted as a separate array.
        """
        ids = self.batch.task_instance_ids
        first = len(ids) - len(wanted)
        if len(wanted) == len(ids):
            return replace(self, most=None)
        if as_array and self.is_array and wanted == set(ids[first:]):
            return replace(
                self,
                batch=translate.picked(self.batch, range(first, len(ids))),
                first_step=self.first_step + first,
                most=None,
            )
        return Submission(narrowed(self.batch, wanted), added_at=self.added_at, key=self.key)

    def split(self, count: int) -> tuple[Submission, Submission | None]:
        """Return the first `count` attempts and the rest, as arrays if it is one; the rest is None if there is none."""
        ids = self.batch.task_instance_ids
        if len(ids) <= count:
            return replace(self, most=None), None
        head = replace(self, batch=translate.picked(self.batch, range(count)), most=None)
        tail = replace(
            self,
            batch=translate.picked(self.batch, range(count, len(ids))),
            first_step=self.first_step + count,
            most=None,
        )
        return head, tail

    def followed_by(self, other: Submission) -> Submission | None:
        """Return both joined, if the other submission continues this one; otherwise None."""
        mine, theirs = self.batch, other.batch
        if self.key != other.key or mine.batch_number != theirs.batch_number or mine.plan is not None:
            return None
        if self.is_array and self.first_step + len(mine.task_instance_ids) != other.first_step:
            return None
        return replace(self, batch=translate.joined(mine, theirs), added_at=min(self.added_at, other.added_at))


def key_of(batch: LaunchBatch) -> str:
    """Return the key of attempts that a cluster accepts or rejects alike: template and request."""
    asked = json.dumps(batch.requested_resources, sort_keys=True, default=str)
    return f"{batch.array_id} {batch.queue_name} {asked}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldUp:
    """Why attempts wait: since when, the times of the last and next try (monotonic seconds), and how many wait."""

    text: str
    since: float
    tried_at: float
    next_at: float
    waiting: int


@dataclass(slots=True)
class _Trouble:
    """The state of a key that waits."""

    kind: Setback
    text: str
    since: float
    tried_at: float
    backoff: Backoff = field(default_factory=Backoff)
    exits: int = 0  # own jobs that exited and whose slots are not used again
    is_fresh: bool = False  # some exited since the last try
    probe: int = 1  # number of attempts to try when the pause has passed

    def is_due(self, now: float) -> bool:
        return now >= self.backoff.until or (self.kind is Setback.FULL and self.is_fresh)

    def most(self, now: float) -> int | None:
        if self.kind is not Setback.FULL:
            return None
        return max(self.exits, self.probe) if now >= self.backoff.until else max(self.exits, 1)


class SubmissionQueue:
    """The queue of submissions to one cluster.

    Args:
        patience_seconds: how long a key is retried that is DEFERRED repeatedly.
    """

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience = patience_seconds
        self._waiting: list[Submission] = []
        self._troubles: dict[str, _Trouble] = {}
        self._pause = Backoff()  # pauses all keys
        self._away: _Trouble | None = None
        self._failed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    # -- waiting submissions -----------------------------------------------------------------------------------

    def add(self, batches: Iterable[LaunchBatch], now: float) -> None:
        """Add batches."""
        self._waiting += [Submission(batch, added_at=now) for batch in batches]

    def put_back(self, submissions: Sequence[Submission]) -> None:
        """Return submissions that were taken but not tried; they are next."""
        for one in reversed(submissions):
            self._insert(replace(one, most=None))

    def _insert(self, given: Submission) -> None:
        """Insert a submission at the head, joined with the part that was split off it."""
        for index, other in enumerate(self._waiting):
            if (joined := given.followed_by(other)) is not None:
                del self._waiting[index]
                given = joined
                break
        self._waiting.insert(0, given)

    def attempts(self) -> list[int]:
        """Return all waiting attempts."""
        return [identity for one in self._waiting for identity in one.batch.task_instance_ids]

    def drop(self, identities: Collection[int]) -> list[int]:
        """Remove attempts that are no longer wanted, packed batches only as a whole; return those removed."""
        unwanted = set(identities)
        dropped: list[int] = []
        kept: list[Submission] = []
        for one in self._waiting:
            ids = one.batch.task_instance_ids
            wanted = [identity for identity in ids if identity not in unwanted]
            if len(wanted) == len(ids) or (one.batch.plan is not None and wanted):
                kept.append(one)
                continue
            dropped += [identity for identity in ids if identity in unwanted]
            if wanted:
                kept.append(one.rest(set(wanted), as_array=False))
        self._waiting = kept
        return dropped

    # -- schedule ----------------------------------------------------------------------------------------------

    def take(self, now: float) -> list[Submission]:
        """Remove and return the submissions to try now."""
        if now < self._pause.until:
            return []
        taken: list[Submission] = []
        kept: list[Submission] = []
        tried: set[str] = set()
        for one in self._waiting:
            trouble = self._troubles.get(one.key)
            if trouble is None:
                taken.append(one)
            elif one.key not in tried and trouble.is_due(now):
                tried.add(one.key)
                taken.append(replace(one, most=trouble.most(now)))
            else:
                kept.append(one)
        self._waiting = kept
        return taken

    def due(self) -> float | None:
        """Return when to try next; 0: at once; None: nothing waits."""
        times = []
        for key in {one.key for one in self._waiting}:
            trouble = self._troubles.get(key)
            is_now = trouble is None or (trouble.kind is Setback.FULL and trouble.is_fresh)
            times.append(0.0 if is_now or trouble is None else trouble.backoff.until)
        return max(min(times), self._pause.until) if times else None

    @property
    def is_away(self) -> bool:
        """Whether the cluster did not respond to the last try and has accepted nothing since."""
        return self._away is not None

    @property
    def is_full(self) -> bool:
        """Whether submissions wait for our own jobs to exit."""
        return any(one.kind is Setback.FULL for one in self._troubles.values())

    # -- outcomes ----------------------------------------------------------------------------------------------

    def exited(self, count: int) -> None:
        """Record that this many of our own jobs exited, which may have freed space."""
        for trouble in self._troubles.values():
            if trouble.kind is Setback.FULL and count:
                trouble.exits += count
                trouble.is_fresh = True

    def accepted(self, counts: Mapping[str, int], now: float) -> None:
        """Record how many attempts of each key the cluster accepted."""
        if counts:
            self._pause.succeeded()
            self._away = None
            self._failed.clear()
        for key, count in counts.items():
            trouble = self._troubles.get(key)
            if trouble is None:
                continue
            if trouble.kind is not Setback.FULL:
                del self._troubles[key]
                continue
            trouble.is_fresh = False
            trouble.exits = max(0, trouble.exits - count)
            if now >= trouble.backoff.until:
                trouble.backoff.succeeded()
                trouble.probe = min(PROBE_ATTEMPTS_MAX, trouble.probe * 2)

    def set_back(self, submission: Submission, kind: Setback, text: str, now: float) -> list[Submission]:
        """Put a submission back to wait; return those of its key that waited for too long and must be rejected."""
        self._insert(replace(submission, most=None))
        if kind is Setback.AWAY:
            self._note_away(text, now)
            return []
        trouble = self._note(submission.key, kind, text, now)
        overdue = [one for one in self._waiting if one.key == submission.key and self._is_overdue(trouble, one, now)]
        if overdue:
            self._waiting = [one for one in self._waiting if one not in overdue]
        return overdue

    def lost(self, key: str, text: str, now: float) -> bool:
        """Record that a key's submission was not found. Return False if its patience is used up: reject it."""
        trouble = self._note(key, Setback.DEFERRED, text, now)
        if now - trouble.since < self._patience:
            return True
        del self._troubles[key]
        return False

    def no_answer(self, text: str, now: float) -> None:
        """Record that the cluster did not report whether it accepted a submission."""
        self._note_away(text, now)

    def _is_overdue(self, trouble: _Trouble, one: Submission, now: float) -> bool:
        return trouble.kind is Setback.DEFERRED and now - max(trouble.since, one.added_at) >= self._patience

    def _note_away(self, text: str, now: float) -> None:
        if self._away is None:
            self._away = _Trouble(Setback.AWAY, text, now, now)
        self._away.text, self._away.tried_at = text, now

    def _note(self, key: str, kind: Setback, text: str, now: float) -> _Trouble:
        trouble = self._troubles.get(key)
        if trouble is None or trouble.kind is not kind:
            trouble = self._troubles[key] = _Trouble(kind, text, now, now)
        if now >= trouble.backoff.until:
            trouble.exits //= 2  # this many did not fit
        trouble.text, trouble.tried_at, trouble.is_fresh, trouble.probe = text, now, False, 1
        trouble.backoff.failed(now)
        if kind is Setback.DEFERRED:
            self._failed.add(key)
        return trouble

    def round_over(self, now: float, *, is_away: bool) -> None:
        """Finish a round: pause all keys if there was no response, or if several keys failed in a row."""
        if is_away or len(self._failed) >= FAILED_KEYS_MAX:
            self._pause.failed(now)
            self._failed.clear()
        self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        """Forget keys without waiting submissions; those of lost attempts only later, because these come back."""
        keys = {one.key for one in self._waiting}
        for key, one in list(self._troubles.items()):
            if key not in keys and (one.kind is Setback.FULL or now >= one.tried_at + self._patience):
                del self._troubles[key]

    # -- reasons -----------------------------------------------------------------------------------------------

    def hold_up(self) -> HoldUp | None:
        """Return why attempts wait, or None if nothing prevents their submission."""
        counts: dict[str, int] = {}
        for one in self._waiting:
            counts[one.key] = counts.get(one.key, 0) + len(one.batch.task_instance_ids)
        found = [trouble for key, trouble in self._troubles.items() if key in counts]
        waiting = sum(count for key, count in counts.items() if key in self._troubles)
        if self._away is not None:
            found, waiting = [self._away, *found], sum(counts.values())
        if not found:
            return None
        texts = list(dict.fromkeys(one.text for one in found))
        more = f" (and {len(texts) - TEXTS_SHOWN_MAX} more reasons)" if len(texts) > TEXTS_SHOWN_MAX else ""
        next_at = max(self._pause.until, min(one.backoff.until for one in found))
        return HoldUp(
            text="; ".join(texts[:TEXTS_SHOWN_MAX]) + more,
            since=min(one.since for one in found),
            tried_at=max(one.tried_at for one in found),
            next_at=next_at,
            waiting=waiting,
        )
