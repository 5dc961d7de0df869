"""Run a scheduler's tools with a time limit, count the calls, and classify errors as final or transient."""

from __future__ import annotations

import errno
import logging
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import (
    ClusterFull,
    ClusterUnavailable,
    JobmonError,
    SubmissionDeferred,
    SubmissionRejected,
)
from jobmon.plugins.batch.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.plugins.batch.answers import Texts

logger = logging.getLogger(__name__)
CALL_TIMEOUT_SECONDS: Final = 60.0
#: Maximum number of tries of a query that a busy scheduler did not answer, and the first pause, which doubles. Some
#: tools retry by themselves; a failure after that is not retried here.
TRIES_MAX: Final = 3
PAUSE_SECONDS: Final = 0.5
QUICK_FAILURE_SECONDS: Final = 2.0
#: The kernel lacked a resource for starting a tool; no request was made.
_SHORT: Final = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETXTBSY}
)


class Refused(SubmissionRejected):
    """The scheduler refused and gave a reason."""


class OutcomeUnknown(ClusterUnavailable):
    """The scheduler did not respond; it may or may not have carried out the request."""


class ToolRunner:
    """Run a scheduler's tools.

    Args:
        texts: the error messages of the tools.
        asking: environment for queries and kills.
        telling: environment for submissions.
        calls: counter of the calls.
        call_timeout: longest wait for an answer, seconds.
        pause: pause between two tries, seconds.
    """

    def __init__(
        self,
        texts: Texts,
        asking: Mapping[str, str],
        telling: Mapping[str, str],
        calls: Counter[str] | None = None,
        call_timeout: float = CALL_TIMEOUT_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._texts = texts
        self._asking = dict(asking)
        self._telling = dict(telling)
        self._call_timeout = call_timeout
        self._pause = pause
        self._calls: Counter[str] = Counter() if calls is None else calls
        self._questions: set[subprocess.Popen[str]] = set()
        self._is_closed = False

    def ask(self, arguments: Sequence[str]) -> str:
        """Run a query and return its output; it is repeated if the scheduler was too busy.

        Raises:
            OutcomeUnknown: no answer.
            Refused: the scheduler refused and gave a reason.
        """
        pause = self._pause
        for _ in range(TRIES_MAX - 1):
            began = time.monotonic()
            try:
                return self._call(arguments, self._asking)
            except OutcomeUnknown as error:
                if self._is_closed or time.monotonic() - began > QUICK_FAILURE_SECONDS:
                    raise
                logger.info("%s; retrying in %.1f s", error, pause)
                time.sleep(pause)
                pause *= 2
        return self._call(arguments, self._asking)

    def tell(self, arguments: Sequence[str], script: str = "") -> str:
        """Submit something, once; return the tool's output.

        Args:
            arguments: the tool and its arguments.
            script: its standard input.

        Raises:
            OutcomeUnknown: no answer; it may or may not have been submitted.
            ClusterFull: not now: there is no room for so many jobs.
            SubmissionDeferred: not now, for a reason that may be transient.
            Refused: the scheduler refused and gave a reason.
        """
        return self._call(arguments, self._telling, script)

    def _call(self, arguments: Sequence[str], environment: Mapping[str, str], script: str = "") -> str:
        tool, is_question = arguments[0], environment is self._asking
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
            raise self._not_started(tool, error) from None
        with process:
            answer, error_text = self._answer_of(process, tool, script, is_question=is_question)
        if process.returncode < 0:
            raise OutcomeUnknown(f"{tool} was killed by signal {-process.returncode}")
        if process.returncode != 0:
            error_text = error_text if error_text.strip() else answer  # some tools print errors to standard output
            raise refusal(self._texts, tool, error_text) if is_question else rejection(self._texts, tool, error_text)
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
            raise OutcomeUnknown(f"{tool} did not respond within {self._call_timeout:g} s") from None
        finally:
            self._questions.discard(process)

    def _not_started(self, tool: str, error: OSError) -> JobmonError:
        """Return the error for a tool that cannot be started: final unless the kernel only lacked a resource."""
        if isinstance(error, FileNotFoundError):
            return Refused(
                f"{tool} was not found on the PATH: jobs can be submitted only on a host with {self._texts.system}'s"
                " commands (a login node)."
            )
        kind = SubmissionDeferred if error.errno in _SHORT else Refused
        return kind(f"{tool} could not be started: {error}")

    @property
    def is_closed(self) -> bool:
        """Whether answers are no longer awaited."""
        return self._is_closed

    def close(self) -> None:
        """Abort all queries; a submission in progress is completed."""
        self._is_closed = True
        for process in tuple(self._questions):
            process.kill()


def refusal(texts: Texts, tool: str, error_text: str) -> JobmonError:
    """Return the error for a failed query or kill."""
    words = texts.in_words(tool, error_text)
    if texts.is_unreached(error_text):
        return OutcomeUnknown(f"{texts.system} does not respond: {words}")
    return Refused(f"{texts.system} refused: {words}")


def rejection(texts: Texts, tool: str, error_text: str) -> JobmonError:
    """Return the error for a failed submission."""
    words = texts.in_words(tool, error_text)
    if not error_text.strip():
        return OutcomeUnknown(f"{texts.system} does not respond: {words}")
    kind, what = _ERRORS[texts.answer_of(error_text)]
    return kind(f"{texts.system} {what}: {words}")


_ERRORS: Final[Mapping[Answer, tuple[type[JobmonError], str]]] = {
    Answer.FULL: (ClusterFull, "accepts no more jobs now"),
    Answer.REJECTED: (Refused, "refused"),
    Answer.UNREACHED: (OutcomeUnknown, "does not respond"),
    Answer.UNKNOWN: (SubmissionDeferred, "could not accept the job"),
}
