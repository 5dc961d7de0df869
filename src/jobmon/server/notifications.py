"""What people are notified about, and in which words. Pure: no clock, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.outcomes import status_name
from jobmon.core.redaction import redacted_url
from jobmon.core.terminal import plain
from jobmon.core.texts import number_of

USER_PLACEHOLDER: Final = "{user}"
#: A user's name as part of an address; others could change the meaning of the address.
_USER: Final = re.compile(r"[\w.@+-]{1,64}", re.ASCII)
#: Shorter parts of an address reveal nothing, and occur in every text.
_PART_CHARACTERS_MIN: Final = 4
HIDDEN: Final = "***"


class Event(StrEnum):
    """What a notification is about."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    FIRST_FAILURE = "first-failure"
    STALLED = "stalled"


#: The event of a run that ends. A run that makes way for a resume (TERMINATED) is no event.
EVENT_OF_RUN: Final[Mapping[str, Event]] = {
    WorkflowRunStatus.DONE: Event.DONE,
    WorkflowRunStatus.ERROR: Event.FAILED,
    WorkflowRunStatus.ABORTED: Event.FAILED,
    WorkflowRunStatus.STOPPED: Event.STOPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run and its workflow. `counts`: number of tasks by status letter; `is_inner`: a task's command started it."""

    workflow_id: int
    run_id: int
    name: str
    tool: str
    user: str
    run_status: str
    end_reason: str | None
    is_inner: bool
    seconds: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notification for the owner of a workflow. `event`: None for a test message."""

    user: str
    title: str
    body: str
    event: Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifying:
    """Settings of notifications.

    Args:
        urls: Apprise URLs of the receivers; `{user}` stands for the owner of the workflow.
        events: the events to notify about.
        stalled_seconds: a run is stalled if nothing was running and nothing changed for so long.
        public_url: address of the web page for links; "": no links.
    """

    urls: tuple[str, ...] = ()
    events: frozenset[Event] = frozenset()
    stalled_seconds: float = 0.0
    public_url: str = ""


def url_for(url: str, user: str) -> str | None:
    """Return the address for a user; None: the user's name cannot be part of an address.

    >>> url_for("mailto://smtp.example.org?to={user}@example.org", "ada")
    'mailto://smtp.example.org?to=ada@example.org'
    """
    if USER_PLACEHOLDER not in url:
        return url
    return url.replace(USER_PLACEHOLDER, quote(user, safe="")) if _USER.fullmatch(user) else None


def without_secrets(text: str, url: str) -> str:
    """Return a text from a sender without the parts of an address that occur in it.

    >>> without_secrets("POST https://chat.example.org/T0PSECRET failed", "jsons://chat.example.org/T0PSECRET")
    'POST https://***/*** failed'
    """
    parts = [part for part in re.split(r"[/:?&=@]+", url.partition("://")[2]) if len(part) >= _PART_CHARACTERS_MIN]
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        text = text.replace(part, HIDDEN)
    return text


def place_of(number: int, url: str) -> str:
    """Return how messages name a receiver: its position in the setting, and the service.

    >>> place_of(0, "slack://TokenA/TokenB/TokenC")
    'notify.urls 1 (slack://***)'
    """
    return f"notify.urls {number + 1} ({redacted_url(url)})"


def compose(event: Event, run: RunSummary, public_url: str) -> Message:
    """Return the notification about an event."""
    name = plain(run.name or run.tool).replace("\n", " ")
    lines = [f"{_progress(run.counts)}."]
    lines.append(f"Run {run.run_id} of tool {plain(run.tool)} for {plain(run.user)}, {_duration(run.seconds)}.")
    if (command := _COMMANDS.get(event)) is not None:
        lines.append(f"Details: jobmon {command} {run.workflow_id}")
    if public_url:
        lines.append(f"{public_url.rstrip('/')}/#/workflows/{run.workflow_id}")
    title = f"{_heading(event, run)}: workflow {run.workflow_id} {name}"
    return Message(event=event, user=run.user, title=title, body="\n".join(lines))


_COMMANDS: Final[Mapping[Event, str]] = {
    Event.FAILED: "workflow errors -w",
    Event.FIRST_FAILURE: "workflow errors -w",
    Event.STALLED: "workflow explain -w",
}


def _heading(event: Event, run: RunSummary) -> str:
    if event is Event.FIRST_FAILURE:
        return "First failure"
    if event is Event.STALLED:
        return "Stalled"
    of_workflow = fsm.WORKFLOW_OF_RUN[WorkflowRunStatus(run.run_status)]
    return status_name(of_workflow, run.run_status, run.end_reason)


def _progress(counts: Mapping[str, int]) -> str:
    total, done = sum(counts.values()), counts.get(TaskStatus.DONE, 0)
    skipped, failed = counts.get(TaskStatus.SKIPPED, 0), counts.get(TaskStatus.ERROR_FATAL, 0)
    text = f"{done:,} of {number_of(total, 'task')} done"
    text = f"{text}, {skipped:,} skipped" if skipped else text
    return f"{text}, {failed:,} failed" if failed else text


def _duration(seconds: float) -> str:
    """Format a duration.

    >>> _duration(3.25), _duration(3725)
    ('3 s', '1:02:05 h')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} h"
