"""Interpret the error messages of a scheduler's tools. Pure: tables of texts.

Only a text that is listed as rejected is final. An unknown text may be transient, like most faults of a scheduler, so
the submission is retried for a limited time: a list of all transient errors could never be complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import ClusterUnavailable

if TYPE_CHECKING:
    import re

WORDS_SHOWN_CHARACTERS_MAX: Final = 1_000
GARBAGE_SHOWN_CHARACTERS_MAX: Final = 120


class Answer(Enum):
    """The outcome of a failed submission."""

    FULL = "a limit on the number of jobs is reached: it waits"
    REJECTED = "it is rejected, and would be rejected again"
    UNREACHED = "the scheduler did not respond: it may have been submitted"
    UNKNOWN = "it was not submitted, for a reason that may be transient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of one scheduler, in lower case; a part of a text is sufficient.

    Args:
        system: the scheduler's name in messages, e.g. "Slurm".
        full: the scheduler accepts no more jobs at the moment.
        rejected: the request is invalid, or not allowed for this user. Repeating it is pointless.
        unreached: the scheduler was unreachable or too busy; it may or may not have carried out the request.
        unclear: the same, but only for queries; for a submission these texts mean something else.
        over: the jobs to kill have already ended.
        ignored: lines without information.
    """

    system: str
    full: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def answer_of(self, error_text: str) -> Answer:
        """Return what a submission's error means. The last line, which states the final reason, is checked first.

        Args:
            error_text: the complete standard error of the tool.
        """
        lines = self.lines_of(error_text.lower())
        found = self.known("\n".join(lines[-1:]))
        return self.known("\n".join(lines)) if found is Answer.UNKNOWN else found

    def known(self, text: str) -> Answer:
        """Look up a lower-case text in the tables."""
        for signs, answer in (
            (self.full, Answer.FULL),
            (self.rejected, Answer.REJECTED),
            (self.unreached, Answer.UNREACHED),
        ):
            if any(sign in text for sign in signs):
                return answer
        return Answer.UNKNOWN

    def is_unreached(self, error_text: str) -> bool:
        """Return whether a query received no answer."""
        return any(sign in error_text.lower() for sign in (*self.unreached, *self.unclear))

    def is_over(self, error_text: str) -> bool:
        """Return whether jobs could not be killed only because they have already ended."""
        return any(sign in error_text.lower() for sign in self.over)

    def lines_of(self, error_text: str) -> list[str]:
        """Return the lines that contain information."""
        lines = (line.strip() for line in error_text.splitlines())
        return [line for line in lines if line and line.lower() not in self.ignored]

    def in_words(self, tool: str, error_text: str) -> str:
        """Return the scheduler's sentences without the tool's name and without duplicates."""
        sentences: list[str] = []
        for line in self.lines_of(error_text):
            sentence = line.removeprefix(f"{tool}:").strip().removeprefix("error:").strip()
            if sentence and sentence not in sentences:
                sentences.append(sentence)
        return "; ".join(sentences)[:WORDS_SHOWN_CHARACTERS_MAX] or f"{tool} failed without a message"


def garbage(tool: str, output: str) -> ClusterUnavailable:
    """Return the error for output that cannot be parsed.

    Args:
        tool: the tool that printed it.
        output: the output, or one line of it.
    """
    shown = output.strip()[:GARBAGE_SHOWN_CHARACTERS_MAX]
    return ClusterUnavailable(f"the output of {tool} cannot be parsed: {shown!r}")


def printed_id(tool: str, output: str, form: re.Pattern[str]) -> str:
    """Parse the id that a tool prints as its last word; a site may print text before it.

    Args:
        tool: the tool that printed it.
        output: the output.
        form: pattern of that word; its first group is the id.

    Raises:
        ClusterUnavailable: the last word does not match.
    """
    words = output.split()
    found = form.match(words[-1]) if words else None
    if found is None:
        raise garbage(tool, output)
    return found[1]
