"""Detect problems with jobs that users must know about: workers that cannot reach the server, and cancelled jobs.

Pure: times are passed in (monotonic seconds). If a job has run for `UNHEARD_SECONDS` and this distributor knows of no
worker, the server is asked whether the worker has contacted it. Findings are reported as a `LaunchProblem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.explain import JOB_RUNS
from jobmon.core.texts import number_of
from jobmon.core.wire.launching import LaunchProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.core.cluster_protocol import RemoteExit

#: How long a job may run before the absence of its worker is suspicious.
UNHEARD_SECONDS: Final = 60.0
#: Interval between questions to the server about such jobs, and the maximum number per question.
ASK_SECONDS: Final = 10.0
ASKED_MAX: Final = 1_000
#: How long a cancellation that was not the submitting user's own is reported.
CANCELLED_SECONDS: Final = 600.0
NAMED_MAX: Final = 5


@dataclass(slots=True)
class _Running:
    host: str
    since: float
    is_silent: bool = False  # the server has never been contacted by its worker


@dataclass(slots=True)
class _Cancelled:
    message: str
    jobs: list[str]
    at: float
    count: int = 1


class Incidents:
    """Track the incidents on one cluster.

    Args:
        server: address of the server, as given to jobs.
        unheard_seconds: how long a job runs before the server is asked about it.
    """

    def __init__(self, server: str, unheard_seconds: float = UNHEARD_SECONDS) -> None:
        self._server = server
        self._unheard_seconds = unheard_seconds
        self._running: dict[int, _Running] = {}  # jobs whose worker is not known to have contacted the server
        self._heard: set[int] = set()
        self._asked_at = float("-inf")
        self._silent_since: float | None = None
        self._cancelled: dict[bool, _Cancelled] = {}  # whether by the submitting user -> the newest

    # -- workers that cannot reach the server ------------------------------------------------------------------

    def saw_running(self, hosts: Mapping[int, str], now: float) -> None:
        """Record which jobs run on which hosts, as reported by the cluster."""
        for identity, host in hosts.items():
            if identity not in self._running and identity not in self._heard:
                self._running[identity] = _Running(host, now)

    def forget(self, identities: Iterable[int]) -> None:
        """Forget jobs that have ended."""
        for identity in identities:
            self._running.pop(identity, None)
            self._heard.discard(identity)

    def ask(self, now: float) -> list[int]:
        """Return the jobs about which the server is asked now; none while it is too soon to ask again."""
        if now < self._asked_at + ASK_SECONDS:
            return []
        asked = [one for one, found in self._running.items() if found.since + self._unheard_seconds <= now][:ASKED_MAX]
        self._asked_at = now if asked else self._asked_at
        return asked

    def due(self) -> float | None:
        """Return when to ask the server next (monotonic seconds); None if there is nothing to ask."""
        if not self._running:
            return None
        first = min(found.since for found in self._running.values())
        return max(self._asked_at + ASK_SECONDS, first + self._unheard_seconds)

    def answered(self, asked: Iterable[int], heard: Iterable[int], now: float) -> dict[int, str]:
        """Process the server's answer; return newly silent job -> why it does not run its command.

        Args:
            asked: jobs about which the server was asked.
            heard: those whose worker has contacted the server.
            now: the current time, monotonic seconds.
        """
        known = set(heard)
        new = {}
        for identity in asked:
            if identity not in self._running:
                continue
            if identity in known:
                self._heard.add(identity)
                del self._running[identity]
            elif not self._running[identity].is_silent:
                self._running[identity].is_silent = True
                new[identity] = f"{JOB_RUNS}{self._running[identity].host}, but {self._unreachable}"
        if self._silent and self._silent_since is None:
            self._silent_since = now
        elif not self._silent:
            self._silent_since = None
        return new

    @property
    def _silent(self) -> list[_Running]:
        return [one for one in self._running.values() if one.is_silent]

    @property
    def _unreachable(self) -> str:
        return f"cannot reach the server at {self._server}"

    # -- cancelled jobs ----------------------------------------------------------------------------------------

    def cancelled(self, distributor_id: str, ending: RemoteExit, now: float) -> None:
        """Record a job that was cancelled, but not by Jobmon; ignore other outcomes."""
        if ending.cause is not Cause.KILLED:
            return
        is_own = ending.status is TaskInstanceStatus.ERROR_FATAL
        known = self._cancelled.get(is_own)
        if known is None or known.message != ending.message:
            self._cancelled[is_own] = _Cancelled(ending.message, [distributor_id], now)
            return
        known.count, known.at = known.count + 1, now
        if len(known.jobs) < NAMED_MAX:
            known.jobs.append(distributor_id)

    # -- for users ---------------------------------------------------------------------------------------------

    def problem(self, now: float) -> LaunchProblem | None:
        """Return the problem to show to users, for the server; None if there is none."""
        silent = self._silent
        texts = []
        if silent:
            hosts = sorted({one.host for one in silent})
            names = ", ".join(hosts[:NAMED_MAX]) + (", ..." if len(hosts) > NAMED_MAX else "")
            texts.append(
                f"jobs run on {names} but {self._unreachable}. Open its port in the firewall, or set server.host to an"
                " address that the nodes reach"
            )
        texts += [self._text(is_own, one) for is_own, one in self._cancelled.items() if is_own or _is_new(one, now)]
        if not texts:
            return None
        cancelled_at = [now - one.at for one in self._cancelled.values()]
        since = now - self._silent_since if self._silent_since is not None else max(cancelled_at, default=0.0)
        return LaunchProblem(
            text=". ".join(texts),
            since_seconds=max(0.0, since),
            tried_seconds=max(0.0, now - self._asked_at) if silent else min(cancelled_at, default=0.0),
            next_seconds=max(0.0, self._asked_at + ASK_SECONDS - now) if silent else 0.0,
            waiting=len(silent),
        )

    def _text(self, is_own: bool, found: _Cancelled) -> str:
        more = f" and {found.count - len(found.jobs)} more" if found.count > len(found.jobs) else ""
        jobs = f"{number_of(found.count, 'job')} ({', '.join(found.jobs)}{more})"
        after = "nothing is submitted again before that" if is_own else "submitted again"
        return f"{jobs}: {found.message}; {after}"


def _is_new(found: _Cancelled, now: float) -> bool:
    return now < found.at + CANCELLED_SECONDS
