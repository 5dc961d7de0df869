"""Decide when a report is settled: one rule for workers, packed jobs, the replay of undelivered reports, distributors.

*Answered* does not mean *recorded*. Only two answers settle a report: a 2xx that can be decoded and comes from our
server, and our server's statement that the attempt is over. Every other answer keeps the report (see `judge`).

Pure; imports nothing because workers load it (`python -I -S`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

#: Verdicts on an answer.
SETTLED = "settled"
OVER = "the attempt is over"
UNKNOWN = "the attempt is unknown"
TOO_LARGE = "too large"
FAULTY = "faulty"
DOUBTED = "refused by another program"
KEPT = "kept"
#: Actions on the reports of a request after a verdict.
FORGET = "forget"
SET_ASIDE = "set aside"
SHORTEN = "shorten"
POSTPONE = "postpone"
REPEAT = "repeat"

#: Kinds of `Problem`; a test compares them with `core.exceptions`.
ATTEMPT_OVER = "AttemptOver"
ATTEMPT_UNKNOWN = "AttemptUnknown"

#: Maximum bytes of encoded reports per request. A single report may be larger; `LOG_TAIL_BYTES_MAX` bounds it.
PORTION_BYTES_MAX = 1024 * 1024
PAUSE_SECONDS_FIRST = 0.1
PAUSE_SECONDS_MAX = 5.0
#: Upper bound for the pause requested by a server or proxy (Retry-After).
RETRY_AFTER_SECONDS_MAX = 60.0
#: Minimum interval between log messages of one kind, and the number of kinds remembered.
SAID_SECONDS = 60.0
SAID_KINDS_MAX = 100


def is_problem(content: Any) -> bool:
    """Return whether decoded content has the shape of a `Problem`."""
    return (
        isinstance(content, dict) and isinstance(content.get("kind"), str) and isinstance(content.get("message"), str)
    )


def is_from(content: Any, identity: str) -> bool:
    """Return whether decoded content comes from the server of this identity.

    Args:
        content: the decoded body.
        identity: the server's identity when we started; "": it named none, so no identity is compared.
    """
    return isinstance(content, dict) and (not identity or content.get("server_identity") == identity)


def judge(status: int, content: Any, identity: str, is_expected: Callable[[dict[str, Any]], bool]) -> str:
    """Return the verdict on the reports of a request, given its answer.

    Args:
        status: HTTP status.
        content: the decoded body; None if it is empty or not JSON.
        identity: the server's identity, as in `is_from`.
        is_expected: returns whether a body has the shape that a 2xx answer must have.

    Returns:
        SETTLED: recorded. OVER, UNKNOWN: our server says this about the attempt. TOO_LARGE: send less at once. FAULTY:
        our server cannot read the request. DOUBTED: another program, such as a proxy, cannot. KEPT: nothing is known.
    """
    is_ours = is_from(content, identity)
    if 200 <= status < 300:
        return SETTLED if is_ours and is_expected(content) else KEPT
    kind = content["kind"] if is_ours and is_problem(content) else ""
    if status >= 400 and kind == ATTEMPT_OVER:
        return OVER
    if status >= 400 and kind == ATTEMPT_UNKNOWN:
        return UNKNOWN
    if status == 413:
        return TOO_LARGE
    if status in (400, 422):
        return FAULTY if kind else DOUBTED
    return KEPT


class Portion:
    """Decide how many reports go into one request, and what happens to them after each verdict.

    Args:
        count_max: maximum number of reports in one request.
        bytes_max: maximum bytes of encoded reports in one request; a single larger report is sent alone.
    """

    def __init__(self, count_max: int, bytes_max: int = PORTION_BYTES_MAX) -> None:
        self._count_full = self._count = count_max
        self._bytes = bytes_max

    @property
    def is_narrowed(self) -> bool:
        """Whether a rejected request is being bisected; then send reports alone, so that nothing else is rejected."""
        return self._count < self._count_full

    def fitting(self, sizes: Iterable[int]) -> int:
        """Return how many reports of the given encoded sizes fit into the next request; at least the first one."""
        count = total = 0
        for size in sizes:
            total += size
            if count == self._count or (count and total > self._bytes):
                break
            count += 1
        return count

    def follow(self, verdict: str, count: int, size: int) -> str:
        """Adjust the portion to the verdict on a request, and return what to do with its reports.

        Args:
            verdict: the verdict returned by `judge`.
            count: the number of reports in the request.
            size: their total size, encoded bytes.

        Returns:
            FORGET, SET_ASIDE (faulty or unknown), SHORTEN (drop the log tail, resend), POSTPONE (send it after the
            others, after a pause), or REPEAT (resend, in smaller portions unless the verdict is KEPT).
        """
        if verdict == SETTLED:
            self._count = min(self._count_full, self._count * 2)
            return FORGET
        if verdict == KEPT or count == 0:
            return REPEAT
        if count > 1:
            self._count = max(1, count // 2)
            if verdict == TOO_LARGE:  # the server's limit stays the same
                self._bytes = max(1, size // 2)
            return REPEAT
        return {OVER: FORGET, TOO_LARGE: SHORTEN, DOUBTED: POSTPONE}.get(verdict, SET_ASIDE)


class Pauses:
    """Pauses between retries, which double up to `PAUSE_SECONDS_MAX`."""

    def __init__(self) -> None:
        self._next = PAUSE_SECONDS_FIRST

    def next(self) -> float:
        """Return the maximum of the next pause, seconds; callers shorten it at random."""
        pause, self._next = self._next, min(self._next * 2, PAUSE_SECONDS_MAX)
        return pause

    def reset(self) -> None:
        """Restart with the shortest pause."""
        self._next = PAUSE_SECONDS_FIRST


def asked_pause(retry_after_seconds: float) -> float:
    """Return the minimum pause after an answer, seconds, given its Retry-After (0: none)."""
    return min(max(0.0, retry_after_seconds), RETRY_AFTER_SECONDS_MAX)


class Said:
    """Remember what was logged, so that a lasting problem is logged at most once per kind and minute."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def is_due(self, kind: str, now: float) -> bool:
        """Return whether to log this kind of problem now; if so, remember that it was logged.

        Args:
            kind: a key shared by all messages of this kind.
            now: monotonic time, seconds.
        """
        if kind in self._at and now - self._at[kind] < SAID_SECONDS:
            return False
        if len(self._at) >= SAID_KINDS_MAX:
            self._at.clear()
        self._at[kind] = now
        return True
