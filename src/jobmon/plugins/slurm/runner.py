"""Running Slurm's tools: bounded in time, counted, and with its answers sorted into refusals and "not now"."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, JobmonError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)
CALL_TIMEOUT_SECONDS: Final = 60.0
#: Tries of a question that a busy controller did not answer, and the pause after the first; it doubles. Slurm's tools
#: themselves try for a while: what failed only then is not tried again here.
TRIES_MAX: Final = 3
PAUSE_SECONDS: Final = 0.5
QUICK_FAILURE_SECONDS: Final = 2.0
WORDS_SHOWN_CHARACTERS_MAX: Final = 1_000
#: What Slurm says when it could not be reached or was too busy, and what happened to the request is not known.
_UNREACHED: Final = (
    "unable to contact slurm",
    "socket timed out",
    "connection refused",
    "connection reset",
    "connection timed out",
    "transport endpoint",
    "zero bytes were transmitted",
    "unexpected message received",
    "backup controller in standby",
    "slurm_persist_conn_open",
    "problem talking to the database",
    "failed to open persistent connection",
    "unspecified error",
    "munge encode failed",
    "invalid authentication credential",
    "protocol authentication error",
    "could not resolve hostname",
    "error resolving",
    "communication connection failure",
    "communications connection failure",
    "resource temporarily unavailable",
    "insufficient credentials",
    "cannot allocate memory",
)
#: What Slurm says when it takes no more jobs at all for the moment.
_FULL: Final = "temporarily unable to accept job"
#: What it says when a limit of user, account or QOS stands against a job. Which one is a line of its own, in older
#: versions missing; waiting helps only against a limit on the number of jobs.
_POLICY: Final = "violates accounting/qos policy"
_LIMIT: Final = re.compile(r"\b(?:Assoc|QOS|Grp|Max)\w*Limit\b")


class SlurmRefused(JobmonError):
    """Slurm refused, and says why."""


class OutcomeUnknown(ClusterUnavailable):
    """Slurm did not answer: it may have done what it was asked, or not."""


class SlurmRunner:
    """Runs Slurm's tools.

    Args:
        asking: the environment of tools that are asked.
        telling: the environment of tools that do something.
        calls: where calls are counted.
        call_timeout: longest wait for an answer, seconds.
        pause: between two tries, seconds.
    """

    def __init__(
        self,
        asking: Mapping[str, str],
        telling: Mapping[str, str],
        calls: Counter[str] | None = None,
        call_timeout: float = CALL_TIMEOUT_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._asking = dict(asking)
        self._telling = dict(telling)
        self._call_timeout = call_timeout
        self._pause = pause
        self._calls: Counter[str] = Counter() if calls is None else calls
        self._questions: set[subprocess.Popen[str]] = set()
        self._is_closed = False

    def ask(self, arguments: Sequence[str]) -> str:
        """Return what a tool prints; asked again when the controller was too busy.

        Raises:
            ClusterUnavailable: no answer.
            SlurmRefused: an answer that says why not.
        """
        pause = self._pause
        for _ in range(TRIES_MAX - 1):
            began = time.monotonic()
            try:
                return self._call(arguments, self._asking)
            except OutcomeUnknown as error:
                if self._is_closed or time.monotonic() - began > QUICK_FAILURE_SECONDS:
                    raise
                logger.info("%s; asking again in %.1f s", error, pause)
                time.sleep(pause)
                pause *= 2
        return self._call(arguments, self._asking)

    def tell(self, arguments: Sequence[str], script: str = "") -> str:
        """Have a tool do something, once; return what it prints.

        Raises:
            OutcomeUnknown: no answer; it may be done or not.
            ClusterFull: not now.
            SlurmRefused: an answer that says why not.
        """
        return self._call(arguments, self._telling, script)

    def _call(self, arguments: Sequence[str], environment: Mapping[str, str], script: str = "") -> str:
        tool = arguments[0]
        self._calls[tool] += 1
        try:
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise not_started(tool, error) from None
        with process:
            answer, complaint = self._answer_of(process, tool, script, is_question=environment is self._asking)
        if process.returncode < 0:
            raise OutcomeUnknown(f"{tool} was killed by signal {-process.returncode}")
        if process.returncode != 0:
            raise refusal(tool, complaint)
        return answer

    def _answer_of(
        self, process: subprocess.Popen[str], tool: str, script: str, *, is_question: bool
    ) -> tuple[str, str]:
        if is_question:
            self._questions.add(process)
            if self._is_closed:
                process.kill()
        try:
            return process.communicate(script, self._call_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise OutcomeUnknown(f"{tool} did not answer within {self._call_timeout:g} s") from None
        finally:
            self._questions.discard(process)

    @property
    def is_closed(self) -> bool:
        """Whether no answer is waited for any more."""
        return self._is_closed

    def close(self) -> None:
        """Wait for no answer any more; what is being told to Slurm is told to the end."""
        self._is_closed = True
        for process in tuple(self._questions):
            process.kill()


def not_started(tool: str, error: OSError) -> JobmonError:
    """Return what to raise where a tool cannot be started: for good where it is missing."""
    if isinstance(error, FileNotFoundError):
        return SlurmRefused(
            f"{tool} was not found on the PATH: jobs can be submitted only from a host with Slurm's commands"
            " (a login node)."
        )
    return ClusterUnavailable(f"{tool} could not be started: {error}")


def refusal(tool: str, complaint: str) -> JobmonError:
    """Return what to raise for what a tool complained."""
    words = in_words(tool, complaint)
    lowered = complaint.lower()
    if _FULL in lowered or (_POLICY in lowered and _is_limit_on_number(complaint)):
        return ClusterFull(f"Slurm takes no more jobs now: {words}")
    if any(sign in lowered for sign in _UNREACHED):
        return OutcomeUnknown(f"Slurm does not answer: {words}")
    return SlurmRefused(f"Slurm refused: {words}")


def _is_limit_on_number(complaint: str) -> bool:
    named = _LIMIT.findall(complaint)
    return not named or any("Submit" in name for name in named)


def in_words(tool: str, complaint: str) -> str:
    """Return Slurm's sentences without the tool's name before each, and each only once."""
    sentences = []
    for line in complaint.splitlines():
        sentence = line.strip().removeprefix(f"{tool}:").strip().removeprefix("error:").strip()
        if sentence and sentence not in sentences:
            sentences.append(sentence)
    return "; ".join(sentences)[:WORDS_SHOWN_CHARACTERS_MAX] or f"{tool} failed and said nothing"
