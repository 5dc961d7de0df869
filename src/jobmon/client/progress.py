"""The progress of a run: snapshots, their rendering, and the observer that takes them. `displays` shows them.

The orchestrator calls `Observer.on_change` after each change, which only copies a few counts. Drawing, and fetching the
errors of failed tasks from the server, happen in a separate thread.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.descriptors import replace_closed_streams
from jobmon.core.exceptions import JobmonError
from jobmon.core.terminal import plain, plain_line
from jobmon.core.texts import number_of, shortened

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from jobmon.client.displays import Display
    from jobmon.client.swarm.state import SwarmState
    from jobmon.core.wire.monitoring import ProgressResponse
    from jobmon.core.wire.swarm import TaskError

logger = logging.getLogger(__name__)

CHANGES_PER_SECOND_MAX: Final = 4
DRAW_SECONDS: Final = 1 / CHANGES_PER_SECOND_MAX
ERRORS_SHOWN_MAX: Final = 5
ERROR_CHARACTERS_MAX: Final = 160
TEMPLATES_SHOWN_MAX: Final = 10
NAME_CHARACTERS_MIN: Final = 4
NAME_CHARACTERS_MAX: Final = 48
#: Minimum interval between requests for templates and the time left, and the maximum share of the time they may take.
PROGRESS_SECONDS_MIN: Final = 1.0
PROGRESS_SHARE_MAX: Final = 0.05
_END_SECONDS_MAX: Final = 5.0

#: Displayed groups: a name, and the statuses that it includes.
GROUPS: Final[Mapping[str, tuple[TaskStatus, ...]]] = {
    "waiting": (TaskStatus.REGISTERING, TaskStatus.ERROR_RECOVERABLE, TaskStatus.ADJUSTING_RESOURCES),
    "queued": (TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED),
    "running": (TaskStatus.RUNNING,),
    "done": (TaskStatus.DONE,),
    "failed": (TaskStatus.ERROR_FATAL,),
    "skipped": (TaskStatus.SKIPPED,),
}
#: Displayed only if there are such tasks.
RARE_GROUPS: Final = frozenset({"skipped"})
_COLOURS: Final = {
    "waiting": "dim",
    "queued": "cyan",
    "running": "yellow",
    "done": "green",
    "failed": "red",
    "skipped": "dim",
}

FetchErrors = Callable[[int], "list[TaskError]"]
FetchProgress = Callable[[], "ProgressResponse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateLine:
    """The tasks of a template: counts by group, and the typical duration of one task, in seconds."""

    name: str
    counts: Mapping[str, int]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a run at one moment.

    Args:
        title: name of the workflow.
        counts: number of tasks by group.
        total: number of tasks.
        done_before: number of tasks that were done before this run.
        elapsed_seconds: seconds since the run started.
        watched_seconds: seconds since `done_before` was counted, if that was later than the start.
        errors: one line for each task that failed permanently.
        templates: counts by template, of the same moment as `counts`.
        left: the time left, as text.
        workflow_id: ID of the workflow.
        held: number of tasks that wait for their release.
    """

    title: str
    counts: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    done_before: int = 0
    elapsed_seconds: float = 0.0
    watched_seconds: float | None = None
    errors: tuple[str, ...] = ()
    templates: tuple[TemplateLine, ...] = ()
    left: str = ""
    workflow_id: int | None = None
    held: int = 0

    @property
    def rate(self) -> float:
        """Number of tasks done per second of this run, or of the time that it was watched."""
        done = self.counts.get("done", 0) - self.done_before
        seconds = self.elapsed_seconds if self.watched_seconds is None else self.watched_seconds
        return done / seconds if seconds > 0 else 0.0


def grouped(counts: Mapping[TaskStatus, int]) -> dict[str, int]:
    """Return counts by group from counts by status."""
    found = {word: sum(counts.get(status, 0) for status in statuses) for word, statuses in GROUPS.items()}
    return {word: count for word, count in found.items() if count or word not in RARE_GROUPS}


def template_lines(found: ProgressResponse) -> tuple[TemplateLine, ...]:
    """Return a line for each template; templates with the most remaining tasks come first."""
    lines = [
        TemplateLine(
            name=one.name,
            counts=grouped({TaskStatus(letter): count for letter, count in one.counts.items()}),
            seconds=one.seconds,
        )
        for one in found.templates
    ]
    return tuple(sorted(lines, key=lambda line: line.counts["done"] - sum(line.counts.values())))


def summed(lines: tuple[TemplateLine, ...]) -> dict[str, int]:
    """Return the total counts of all templates."""
    return {word: sum(line.counts.get(word, 0) for line in lines) for word in _shown(lines)}


def _shown(lines: tuple[TemplateLine, ...]) -> list[str]:
    """Return the groups to display: the rare ones only if there are such tasks."""
    return [word for word in GROUPS if word not in RARE_GROUPS or any(line.counts.get(word) for line in lines)]


def left_text(found: ProgressResponse) -> str:
    """Return the time left as a range, such as "0:01:00 to 0:02:00 left"; "" if it is unknown."""
    if found.left_from is None or found.left_to is None:
        return ""
    low, high = time_text(found.left_from), time_text(found.left_to)
    unknown = f", and {number_of(found.unknown, 'task')} of unknown length" if found.unknown else ""
    return f"{low} to {high} left{unknown}" if low != high else f"{high} left{unknown}"


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank, shortened."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= ERROR_CHARACTERS_MAX else f"{line[: ERROR_CHARACTERS_MAX - 1]}…"


def error_line(error: TaskError) -> str:
    """Return an error of a task as one line that names the task by its ID."""
    name = shortened(error.task_name, NAME_CHARACTERS_MAX)
    return plain_line(f"task {error.task_id} {name}: {first_line(error.error)}")


def last_lines(snapshot: Snapshot) -> list[str]:
    """Return the lines shown when a run is over: the errors, and the next command."""
    failed, done = snapshot.counts.get("failed", 0), snapshot.counts.get("done", 0)
    lines = [plain(error) for error in snapshot.errors]
    if snapshot.workflow_id is None:
        return lines
    if failed:
        of = f"{failed:,} of {number_of(snapshot.total, 'task')}"
        lines.append(f"{of} of workflow {snapshot.workflow_id} failed: jobmon workflow errors {snapshot.workflow_id}")
    elif done + snapshot.counts.get("skipped", 0) == snapshot.total:
        lines.append(f"Workflow {snapshot.workflow_id} is done: jobmon workflow status {snapshot.workflow_id}")
    return lines


def line_of(snapshot: Snapshot) -> str:
    """Return a snapshot as one line."""
    counts = ", ".join(_count_text(snapshot, word) for word, number in snapshot.counts.items() if number)
    elapsed = time_text(snapshot.elapsed_seconds)
    left = f", {snapshot.left}" if snapshot.left else ""
    title = plain_line(snapshot.title)
    return f"{title}: {counts or 'nothing yet'} of {snapshot.total}; {snapshot.rate:.1f}/s, {elapsed}{left}"


def _count_text(snapshot: Snapshot, word: str) -> str:
    """Return the number of tasks of a group; those that wait may do so because they are held."""
    number = snapshot.counts[word]
    held = min(snapshot.held, number) if word == "waiting" else 0
    return f"{number} {word}{f' ({held} held)' if held else ''}"


def time_text(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def drawn(snapshot: Snapshot) -> RenderableType:
    """Return a snapshot as a rich renderable."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done = snapshot.counts.get("done", 0)
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(plain_line(snapshot.title), style="bold"),
        ProgressBar(total=max(snapshot.total, 1), completed=_ended(snapshot.counts), width=30),
        f"{done}/{snapshot.total}",
        f"{snapshot.rate:.1f}/s",
        time_text(snapshot.elapsed_seconds),
    )
    counts = Text("  ".join(_count_text(snapshot, word) for word in snapshot.counts))
    for word, colour in _COLOURS.items():
        counts.highlight_regex(rf"\d+ {word}", colour)
    left = [Text(snapshot.left)] if snapshot.left else []
    errors = (Text(plain(error), style="red", overflow="ellipsis", no_wrap=True) for error in snapshot.errors)
    table = [_Templates(snapshot.templates)] if len(snapshot.templates) > 1 else []
    return Group(head, counts, *left, *table, *errors)


class _Templates:
    """A table of templates; names are shortened in the middle to the width that the terminal leaves for them."""

    def __init__(self, lines: tuple[TemplateLine, ...]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        groups = _shown(self._lines)
        heads = [*groups, "each"]
        gap = 2
        room = options.max_width - sum(len(head) + gap for head in heads)
        name_characters = max(NAME_CHARACTERS_MIN, min(NAME_CHARACTERS_MAX, room))
        table = Table.grid(padding=(0, gap))
        table.add_column(no_wrap=True)
        for head in heads:
            table.add_column(min_width=len(head), justify="right", no_wrap=True)
        table.add_row("", *(Text(head, style=_COLOURS.get(head, "")) for head in heads))
        for line in self._lines[:TEMPLATES_SHOWN_MAX]:
            counts = [Text(str(line.counts.get(word, 0)), style=_COLOURS[word]) for word in groups]
            took = "" if line.seconds is None else f"{line.seconds:.3g} s"
            table.add_row(Text(plain_line(shortened(line.name, name_characters))), *counts, took)
        yield table
        more = len(self._lines) - TEMPLATES_SHOWN_MAX
        if more > 0:
            yield Text(f"and {number_of(more, 'more template')}", style="dim")


class Outlook:
    """Counts by template and the time left; fetched rarely, since the server counts all tasks for them."""

    def __init__(
        self, fetch: FetchProgress, monotonic: Callable[[], float] = time.monotonic, *, wait_first: bool = True
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._due = monotonic() + (PROGRESS_SECONDS_MIN if wait_first else 0.0)
        self.templates: tuple[TemplateLine, ...] = ()
        self.left = ""

    def learn(self) -> None:
        """Fetch if it is time to; keep the last response if the server does not respond."""
        began = self._monotonic()
        if began < self._due:
            return
        try:
            found = self._fetch()
        except JobmonError as error:
            logger.debug("The server did not report progress: %s", error)
        else:
            self.templates, self.left = template_lines(found), left_text(found)
        now = self._monotonic()
        self._due = now + max(PROGRESS_SECONDS_MIN, (now - began) / PROGRESS_SHARE_MAX)


class Observer:
    """Takes counts when the orchestrator reports a change, and has them shown.

    Args:
        title: name of the workflow.
        display: shows the snapshots.
        fetch_errors: fetches up to the given number of the newest errors from the server.
        on_progress: called when tasks have completed.
        release: called at the end of the fetching thread, to release its connection.
        monotonic: returns the time in seconds since an arbitrary moment.
        fetch_progress: fetches counts by template and the time left from the server; None: these are not shown.
        workflow_id: ID of the workflow.
    """

    def __init__(
        self,
        title: str,
        display: Display,
        fetch_errors: FetchErrors,
        on_progress: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        fetch_progress: FetchProgress | None = None,
        workflow_id: int | None = None,
    ) -> None:
        self._title = title
        self._workflow_id = workflow_id
        self._display = display
        self._fetch_errors = fetch_errors
        self._on_progress = on_progress
        self._release = release
        self._monotonic = monotonic
        self._outlook = None if fetch_progress is None else Outlook(fetch_progress, monotonic)
        self._started = monotonic()
        self._counted = 0.0
        self._is_behind = False
        self._counts: dict[str, int] = {}
        self._total = 0
        self._held = 0
        self._done_before: int | None = None
        self._errors: tuple[str, ...] = ()
        self._errors_of = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_now_and_then, name="jobmon-progress", daemon=True)
        self.state: SwarmState | None = None

    def start(self) -> None:
        """Start showing progress."""
        self._thread.start()

    def on_change(self, state: SwarmState) -> None:
        """Take counts at a limited rate. Called by the orchestrator, so it must not block."""
        self.state = state
        now = self._monotonic()
        self._is_behind = self._done_before is not None and now - self._counted < DRAW_SECONDS
        if not self._is_behind:
            self._counted = now
            self._count(state)

    def _count(self, state: SwarmState) -> None:
        counts = grouped(state.count_by_status())
        if self._done_before is None:
            self._done_before = counts["done"]
        elif _ended(counts) > _ended(self._counts):
            self._on_progress()
        self._counts, self._total, self._held = counts, state.total_tasks, len(state.on_hold)

    def snapshot(self) -> Snapshot:
        """Return the state of the run; its counts are of the same moment as those by template, if these are shown."""
        templates = () if self._outlook is None else self._outlook.templates
        return Snapshot(
            title=self._title,
            workflow_id=self._workflow_id,
            counts=self._counts if len(templates) <= 1 else summed(templates),
            total=self._total,
            held=self._held,
            done_before=self._done_before or 0,
            elapsed_seconds=self._monotonic() - self._started,
            errors=self._errors,
            templates=templates,
            left="" if self._outlook is None else self._outlook.left,
        )

    def finish(self, *, is_server_silent: bool = False) -> None:
        """Show the outcome; an unresponsive server is neither asked nor waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(0.0 if is_server_silent else _END_SECONDS_MAX)
        if self.state is not None:
            self._count(self.state)
        if not is_server_silent:
            self._learn_errors()
        self._display.finish(dataclasses.replace(self.snapshot(), counts=self._counts, templates=(), left=""))

    def _draw_now_and_then(self) -> None:
        while not self._ended.wait(DRAW_SECONDS):
            replace_closed_streams()
            if self._is_behind and self.state is not None:  # the last of several changes was skipped
                self._is_behind = False
                self._count(self.state)
            self._learn_errors()
            if self._outlook is not None:
                self._outlook.learn()
            if not self._ended.is_set():
                self._display.show(self.snapshot())
        self._release()

    def _learn_errors(self) -> None:
        failed = self._counts.get("failed", 0)
        if failed == self._errors_of:
            return
        try:
            errors = self._fetch_errors(ERRORS_SHOWN_MAX)
        except JobmonError as error:
            logger.debug("Errors of failed tasks could not be fetched: %s", error)
            return
        self._errors_of = failed
        self._errors = tuple(map(error_line, errors))


def _ended(counts: Mapping[str, int]) -> int:
    return sum(counts.get(word, 0) for word in ("done", "failed", "skipped"))
