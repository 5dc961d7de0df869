"""A view of all jobs of a user on a cluster, and queries on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.batch.endings import Ending
from jobmon.plugins.batch.ids import IdFormat, JobIds
from jobmon.plugins.batch.submission import mark_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION: Final = 3
#: The state, in Jobmon's terms, of jobs that were cancelled as a whole before they started.
CANCELLED: Final = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A row of a scheduler's list: a job, or array steps that share all values of the row.

    Args:
        ids: the ids of the row.
        name: the job's name.
        state: the scheduler's own term.
        is_pending: whether it waits in the scheduler's queue.
        reason: why it waits, in the scheduler's words.
        starts_at: the scheduler's estimate of the start, seconds since the epoch.
        ending: its outcome; None if it has not ended.
        host: the host on which it runs now; None if it does not run or the scheduler does not report it.
    """

    ids: JobIds
    name: str
    state: str = ""
    is_pending: bool = False
    reason: str = ""
    starts_at: float | None = None
    ending: Ending | None = None
    host: str | None = None

    @property
    def text(self) -> str:
        """The ids of the row as one word."""
        return str(self.ids)


def view_of(at: float, listed: Iterable[ListedJob], accounted: Iterable[ListedJob] = ()) -> dict[str, Any]:
    """Return the list and accounting of Jobmon's jobs as JSON values; the user's other jobs are left out."""
    ours = [one for one in listed if mark_of(one.name) is not None]
    past = [one for one in accounted if mark_of(one.name) is not None]
    ended = {one.text: one.ending for one in (*ours, *past) if one.ending is not None}
    return {
        "version": VERSION,
        "at": at,
        "held": [
            [one.text, one.name, one.state, one.is_pending, one.reason, one.starts_at, one.host]
            for one in ours
            if one.ending is None
        ],
        "ended": [[text, *ending.values()] for text, ending in ended.items()],
    }


class View:
    """Answer queries from one view.

    Args:
        content: the result of `view_of`, possibly from another version of Jobmon.
        form: the scheduler's id format.

    Raises:
        ClusterUnavailable: the content cannot be parsed.
    """

    def __init__(self, content: Mapping[str, Any], form: IdFormat | None = None) -> None:
        self._form = form or IdFormat()
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']!r}")
            self.at = float(content["at"])
            self.held = [self._held(one) for one in content["held"]]
            self.ended = {str(text): Ending.of_values(values) for text, *values in content["ended"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ClusterUnavailable(f"A view of the cluster cannot be parsed: {error!r}") from error
        self._by_id: dict[str, ListedJob] = {}
        self._pending: dict[str, list[ListedJob]] = {}  # by job: the pending rest of an array remains one row
        self._bases: set[str] = set()
        for one in self.held:
            self._bases.add(one.ids.base)
            if one.ids.steps is not None and one.is_pending:
                self._pending.setdefault(one.ids.base, []).append(one)
            else:
                self._by_id.update(dict.fromkeys(one.ids, one))

    def _held(self, values: Iterable[Any]) -> ListedJob:
        text, name, state, is_pending, reason, starts_at, host = values
        ids = self._form.parse(text)
        if ids is None:
            raise ValueError(text)
        return ListedJob(
            ids=ids, name=name, state=state, is_pending=is_pending, reason=reason, starts_at=starts_at, host=host
        )

    def find(self, distributor_id: str) -> ListedJob | None:
        """Return the row that contains this job; the id of a whole array has none."""
        if (found := self._by_id.get(distributor_id)) is not None:
            return found
        base, step = self._form.split(distributor_id)
        if step is None:
            return None
        return next((one for one in self._pending.get(base, ()) if step in one.ids), None)

    def holds(self, distributor_id: str) -> bool:
        """Return whether the scheduler still has this job, or any step of this array."""
        return self.find(distributor_id) is not None or distributor_id in self._bases


class Endings:
    """All known outcomes, by the ids of single jobs; the oldest ones are dropped.

    Args:
        kept_max: maximum number kept.
        form: the scheduler's id format.
    """

    def __init__(self, kept_max: int, form: IdFormat | None = None) -> None:
        self._kept_max = kept_max
        self._form = form or IdFormat()
        self._found: dict[str, Ending] = {}
        self._rests: dict[str, list[tuple[JobIds, Ending]]] = {}  # by job: steps that ended before they started
        self._rest_texts: set[str] = set()

    def add(self, ended: Mapping[str, Ending]) -> None:
        """Add outcomes; data from accounting is never replaced by less complete data.

        Args:
            ended: outcomes by ids in the scheduler's format.
        """
        for text, ending in ended.items():
            ids = self._form.parse(text)
            if ids is None:
                continue
            if ids.is_one:
                self._note(next(iter(ids)), ending)
            elif text not in self._rest_texts:
                self._rest_texts.add(text)
                self._rests.setdefault(ids.base, []).append((ids, ending))
        while len(self._found) > self._kept_max:
            del self._found[next(iter(self._found))]

    def _note(self, identity: str, ending: Ending) -> None:
        known = self._found.get(identity)
        if known is None or ending.is_accounted or not known.is_accounted:
            self._found[identity] = ending

    def find(self, distributor_id: str) -> Ending | None:
        """Return the outcome of a job, or None.

        If the pending rest of an array was cancelled, a step without its own outcome was part of it: Slurm keeps no
        separate row for each such step.
        """
        if (found := self._found.get(distributor_id)) is not None:
            return found
        base, step = self._form.split(distributor_id)
        if step is None:
            return None
        for ids, ending in self._rests.get(base, ()):
            if step in ids:
                return ending
        whole = self._found.get(base)
        return whole if whole is not None and whole.state == CANCELLED else None


def steps_of_marks(
    rows: Iterable[tuple[str, JobIds]], tokens: Iterable[str], form: IdFormat | None = None
) -> dict[str, dict[int, str]]:
    """Return token -> step -> id of the jobs submitted under these tokens.

    Args:
        rows: names and ids of jobs. One row is sufficient: the mark in the name tells which steps there are.
        tokens: the tokens to find.
        form: the scheduler's id format.
    """
    wanted = set(tokens)
    found: dict[str, dict[int, str]] = {}
    for name, ids in rows:
        mark = mark_of(name)
        if mark is None or mark.token not in wanted:
            continue
        found.setdefault(mark.token, {}).update(mark.ids(ids.base, form or IdFormat()))
    return found
