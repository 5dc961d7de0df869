"""Showing how a run goes on: live on a terminal, elsewhere a line in the log now and then.

The orchestrator tells of its state after each change (`Observer.on_change`); that only takes a few counts. Drawing, and
asking the server for the errors of failed tasks, is done by a thread of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import JobmonError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from jobmon.client.swarm.state import SwarmState
    from jobmon.core.wire.monitoring import ProgressResponse
    from jobmon.core.wire.swarm import TaskError

logger = logging.getLogger(__name__)

CHANGES_PER_SECOND_MAX: Final = 4
DRAW_SECONDS: Final = 1 / CHANGES_PER_SECOND_MAX
LOG_SECONDS_FIRST: Final = 5.0
LOG_SECONDS_MAX: Final = 60.0
ERRORS_SHOWN_MAX: Final = 5
ERROR_CHARACTERS_MAX: Final = 160
TEMPLATES_SHOWN_MAX: Final = 10
#: The server is asked for templates and the time left at most so often, and for no more than this share of the time.
PROGRESS_SECONDS_MIN: Final = 3.0
PROGRESS_SHARE_MAX: Final = 0.05
_END_SECONDS_MAX: Final = 5.0

#: What people see: a word, and the statuses that it stands for.
GROUPS: Final[Mapping[str, tuple[TaskStatus, ...]]] = {
    "waiting": (TaskStatus.REGISTERING, TaskStatus.ERROR_RECOVERABLE, TaskStatus.ADJUSTING_RESOURCES),
    "queued": (TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED),
    "running": (TaskStatus.RUNNING,),
    "done": (TaskStatus.DONE,),
    "failed": (TaskStatus.ERROR_FATAL,),
}
_COLOURS: Final = {"waiting": "dim", "queued": "cyan", "running": "yellow", "done": "green", "failed": "red"}

FetchErrors = Callable[[int], "list[TaskError]"]
FetchProgress = Callable[[], "ProgressResponse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateLine:
    """How the tasks of a template stand: by group, and how long one takes, seconds."""

    name: str
    counts: Mapping[str, int]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How a run stands: tasks by group, and since when; by template, and how long it still takes, in words."""

    title: str
    counts: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    done_before: int = 0
    elapsed_seconds: float = 0.0
    watched_seconds: float | None = None  # since `done_before` was counted, where that was later than the start
    errors: tuple[str, ...] = ()
    templates: tuple[TemplateLine, ...] = ()
    left: str = ""
    workflow_id: int | None = None

    @property
    def rate(self) -> float:
        """Tasks done per second of this run, or of the time that it was watched."""
        done = self.counts.get("done", 0) - self.done_before
        seconds = self.elapsed_seconds if self.watched_seconds is None else self.watched_seconds
        return done / seconds if seconds > 0 else 0.0


def grouped(counts: Mapping[TaskStatus, int]) -> dict[str, int]:
    """Bring counts by status under the words that people see."""
    return {word: sum(counts.get(status, 0) for status in statuses) for word, statuses in GROUPS.items()}


def template_lines(found: ProgressResponse) -> tuple[TemplateLine, ...]:
    """Return a line for each template; those first of which most is left."""
    lines = [
        TemplateLine(
            name=one.name,
            counts=grouped({TaskStatus(letter): count for letter, count in one.counts.items()}),
            seconds=one.seconds,
        )
        for one in found.templates
    ]
    return tuple(sorted(lines, key=lambda line: line.counts["done"] - sum(line.counts.values())))


def left_text(found: ProgressResponse) -> str:
    """Say how long it still takes, from and to; nothing where that cannot be said."""
    if found.left_from is None or found.left_to is None:
        return ""
    low, high = time_text(found.left_from), time_text(found.left_to)
    tasks = "1 task" if found.unknown == 1 else f"{found.unknown:,} tasks"
    unknown = f", and {tasks} of unknown length" if found.unknown else ""
    return f"{low} to {high} left{unknown}" if low != high else f"{high} left{unknown}"


def first_line(text: str) -> str:
    """Return the first line of a text that says something, shortened."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= ERROR_CHARACTERS_MAX else f"{line[: ERROR_CHARACTERS_MAX - 1]}…"


def line_of(snapshot: Snapshot) -> str:
    """Return a snapshot as one line."""
    counts = ", ".join(f"{number} {word}" for word, number in snapshot.counts.items() if number)
    elapsed = time_text(snapshot.elapsed_seconds)
    left = f", {snapshot.left}" if snapshot.left else ""
    return f"{snapshot.title}: {counts or 'nothing yet'} of {snapshot.total}; {snapshot.rate:.1f}/s, {elapsed}{left}"


def time_text(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def shows_live() -> bool:
    """Say whether standard error is a terminal on which one can draw."""
    return bool(sys.stderr and sys.stderr.isatty()) and os.environ.get("TERM", "") not in ("", "dumb")


class Display(Protocol):
    """Where snapshots are shown."""

    def show(self, snapshot: Snapshot) -> None:
        """Show one."""

    def finish(self, snapshot: Snapshot) -> None:
        """Show the last one and let go."""

    def pause(self) -> None:
        """Leave the terminal to a question."""

    def resume(self) -> None:
        """Go on after the question."""


class LogDisplay:
    """A line in the log: soon, then less and less often."""

    def __init__(self) -> None:
        self._next = 0.0
        self._pause = LOG_SECONDS_FIRST

    def show(self, snapshot: Snapshot) -> None:
        """Log a line if it is time."""
        if snapshot.elapsed_seconds >= self._next:
            self._next = snapshot.elapsed_seconds + self._pause
            self._pause = min(self._pause * 2, LOG_SECONDS_MAX)
            logger.info("%s", line_of(snapshot))

    def finish(self, snapshot: Snapshot) -> None:
        """Log the last line, and what failed. Warnings are seen also where nobody set logging up."""
        logger.info("%s", line_of(snapshot))
        for error in snapshot.errors:
            logger.warning("%s", error)
        failed = snapshot.counts.get("failed", 0)
        if failed and snapshot.workflow_id is not None:
            tasks = "task" if snapshot.total == 1 else "tasks"
            logger.warning(
                "%d of %d %s of workflow %d failed: jobmon workflow errors -w %d",
                failed,
                snapshot.total,
                tasks,
                snapshot.workflow_id,
                snapshot.workflow_id,
            )

    def pause(self) -> None:
        """Nothing to leave."""

    def resume(self) -> None:
        """Nothing to take up."""


class LiveDisplay:
    """A bar with counts, redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live: Live = Live(
            console=console or Console(stderr=True), auto_refresh=False, transient=False, redirect_stdout=False
        )
        self._live.start()
        self._paused = False

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        if not self._paused:
            self._live.update(drawn(snapshot), refresh=True)

    def finish(self, snapshot: Snapshot) -> None:
        """Draw the last one and leave it there."""
        self.resume()
        self.show(snapshot)
        self._live.stop()

    def pause(self) -> None:
        """Stop drawing."""
        self._paused = True
        self._live.stop()

    def resume(self) -> None:
        """Draw again."""
        if self._paused:
            self._live.start()
            self._paused = False


def drawn(snapshot: Snapshot) -> RenderableType:
    """Return a snapshot as something that rich can draw."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done, failed = snapshot.counts.get("done", 0), snapshot.counts.get("failed", 0)
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(snapshot.title, style="bold"),
        ProgressBar(total=max(snapshot.total, 1), completed=done + failed, width=30),
        f"{done}/{snapshot.total}",
        f"{snapshot.rate:.1f}/s",
        time_text(snapshot.elapsed_seconds),
    )
    counts = Text("  ".join(f"{number} {word}" for word, number in snapshot.counts.items()))
    for word, colour in _COLOURS.items():
        counts.highlight_regex(rf"\d+ {word}", colour)
    left = [Text(snapshot.left)] if snapshot.left else []
    errors = (Text(error, style="red", overflow="ellipsis") for error in snapshot.errors)
    return Group(head, counts, *left, *_drawn_templates(snapshot.templates), *errors)


def _drawn_templates(lines: tuple[TemplateLine, ...]) -> list[RenderableType]:
    """Return a table of templates where there are several."""
    from rich.table import Table
    from rich.text import Text

    if len(lines) <= 1:
        return []
    table = Table.grid(padding=(0, 2))
    table.add_row("", *(Text(word, style=_COLOURS[word]) for word in GROUPS), "each")
    for line in lines[:TEMPLATES_SHOWN_MAX]:
        counts = [Text(str(number), style=_COLOURS[word], justify="right") for word, number in line.counts.items()]
        took = "" if line.seconds is None else f"{line.seconds:.3g} s"
        table.add_row(Text(line.name, overflow="ellipsis"), *counts, took)
    more = len(lines) - TEMPLATES_SHOWN_MAX
    return [table, *([Text(f"and {more} templates more", style="dim")] if more > 0 else [])]


class Outlook:
    """What the server says of templates and the time left; asked seldom, since it counts all tasks for that."""

    def __init__(
        self, fetch: FetchProgress, monotonic: Callable[[], float] = time.monotonic, *, wait_first: bool = True
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._due = monotonic() + (PROGRESS_SECONDS_MIN if wait_first else 0.0)
        self.templates: tuple[TemplateLine, ...] = ()
        self.left = ""

    def learn(self) -> None:
        """Ask if it is time to; what cannot be asked now stays as it was."""
        began = self._monotonic()
        if began < self._due:
            return
        try:
            found = self._fetch()
        except JobmonError as error:
            logger.debug("How it goes on could not be asked: %s", error)
        else:
            self.templates, self.left = template_lines(found), left_text(found)
        now = self._monotonic()
        self._due = now + max(PROGRESS_SECONDS_MIN, (now - began) / PROGRESS_SHARE_MAX)


class Observer:
    """Takes counts when the orchestrator says that something changed, and has them shown.

    Args:
        title: what is run.
        display: where to show it.
        fetch_errors: asks the server for so many of the newest errors.
        on_progress: called when tasks came to their end.
        release: called at the end of the thread that fetches: lets go of its connection.
        monotonic: seconds since some moment.
        fetch_progress: asks the server for counts by template and the time left; None: that is not shown.
        workflow_id: of what is run.
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
        self._done_before: int | None = None
        self._errors: tuple[str, ...] = ()
        self._errors_of = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_now_and_then, name="jobmon-progress", daemon=True)
        self.state: SwarmState | None = None

    def start(self) -> None:
        """Begin to show."""
        self._thread.start()

    def on_change(self, state: SwarmState) -> None:
        """Take counts, not too often. Called by the orchestrator, which must not be held up."""
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
        self._counts, self._total = counts, state.total_tasks

    def snapshot(self) -> Snapshot:
        """Return how it stands."""
        return Snapshot(
            title=self._title,
            workflow_id=self._workflow_id,
            counts=self._counts,
            total=self._total,
            done_before=self._done_before or 0,
            elapsed_seconds=self._monotonic() - self._started,
            errors=self._errors,
            templates=() if self._outlook is None else self._outlook.templates,
            left="" if self._outlook is None else self._outlook.left,
        )

    def finish(self, *, is_server_silent: bool = False) -> None:
        """Show how it ended; a server that does not answer is not asked, nor waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(0.0 if is_server_silent else _END_SECONDS_MAX)
        if self.state is not None:
            self._count(self.state)
        if not is_server_silent:
            self._learn_errors()
        self._display.finish(dataclasses.replace(self.snapshot(), templates=(), left=""))  # they are of a while ago

    def _draw_now_and_then(self) -> None:
        while not self._ended.wait(DRAW_SECONDS):
            if self._is_behind and self.state is not None:  # the last of several changes, and none has come since
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
        self._errors = tuple(f"{error.task_name}: {first_line(error.error)}" for error in errors)


def _ended(counts: Mapping[str, int]) -> int:
    return counts.get("done", 0) + counts.get("failed", 0)


def default_display() -> Display:
    """Return the display that suits where standard error goes."""
    return LiveDisplay() if shows_live() else LogDisplay()


def configure_logging() -> None:
    """Send what Jobmon logs to standard error, once."""
    root = logging.getLogger("jobmon")
    if not any(getattr(handler, "is_jobmon", False) for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.is_jobmon = True  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
