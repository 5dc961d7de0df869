"""Displays of the progress of a run: a live view on a terminal or in a notebook, lines elsewhere."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobmon.client.progress import drawn, last_lines, line_of
from jobmon.core.descriptors import is_terminal, replace_broken_standard_error, replace_closed_streams
from jobmon.core.terminal import unguarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.live import Live

    from jobmon.client.progress import Snapshot

logger = logging.getLogger(__name__)

#: Initial and maximum interval between two lines.
LINE_SECONDS_FIRST: Final = 5.0
LINE_SECONDS_MAX: Final = 60.0
NOTEBOOK_COLUMNS: Final = 100


class Display(Protocol):
    """Shows snapshots."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""

    def note(self, text: str) -> None:
        """Show a sentence about the run."""

    def finish(self, snapshot: Snapshot) -> None:
        """Show the last snapshot and close the display."""

    def pause(self) -> None:
        """Clear the terminal for a question."""

    def resume(self) -> None:
        """Continue after the question."""


class LineDisplay:
    """Writes lines to standard error at increasing intervals. For nohup, CI and batch jobs."""

    def __init__(self) -> None:
        self._next = 0.0
        self._pause = LINE_SECONDS_FIRST

    def show(self, snapshot: Snapshot) -> None:
        """Write a line if it is time to."""
        if snapshot.elapsed_seconds >= self._next:
            self._next = snapshot.elapsed_seconds + self._pause
            self._pause = min(self._pause * 2, LINE_SECONDS_MAX)
            self._write(line_of(snapshot))

    def note(self, text: str) -> None:
        """Write a sentence."""
        self._write(text)

    def finish(self, snapshot: Snapshot) -> None:
        """Write the last line, the failures, and the next command."""
        if snapshot.total:
            self._write(line_of(snapshot))
        for line in last_lines(snapshot):
            self._write(line, is_last=True)

    def _write(self, line: str, *, is_last: bool = False) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def pause(self) -> None:
        """Do nothing: lines do not interfere with a question."""

    def resume(self) -> None:
        """Do nothing: there is nothing to redraw."""


class LogDisplay(LineDisplay):
    """Logs the lines, if the script has configured logging; failures are logged as warnings."""

    def _write(self, line: str, *, is_last: bool = False) -> None:
        logger.log(logging.WARNING if is_last else logging.INFO, "%s", line)

    def finish(self, snapshot: Snapshot) -> None:
        """Log the last line and the failures."""
        if snapshot.total:
            self._write(line_of(snapshot))
        is_failed = bool(snapshot.errors or snapshot.counts.get("failed"))
        for line in last_lines(snapshot):
            self._write(line, is_last=is_failed)


class LiveDisplay:
    """A bar with counts, redrawn in place on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live: Live = Live(
            console=console or Console(file=unguarded(sys.stderr)),
            auto_refresh=False,
            transient=False,
            redirect_stdout=False,
        )
        self._stderr = sys.stderr  # the live display replaces it while it is shown
        self._live.start()
        self._paused = False

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        if not self._paused:
            self._live.update(drawn(snapshot), refresh=True)

    def note(self, text: str) -> None:
        """Print a sentence above the live view."""
        from rich.text import Text

        self._live.console.print(Text(text), soft_wrap=True)

    def finish(self, snapshot: Snapshot) -> None:
        """Draw the last snapshot and keep it; print the failures and the next command below it."""
        from dataclasses import replace

        from rich.text import Text

        self.resume()
        self.show(replace(snapshot, errors=()))
        self._live.stop()
        for line in last_lines(snapshot):
            self._live.console.print(Text(line), soft_wrap=True)

    def pause(self) -> None:
        """Remove the live view, so that it does not appear twice afterwards."""
        self._paused = True
        self._live.transient = True
        self._live.stop()

    def resume(self) -> None:
        """Draw again after a pause."""
        if self._paused:
            self._live.transient = False
            self._live.start()
            self._paused = False

    def abandon(self) -> None:
        """Restore standard error without drawing any more."""
        from rich.file_proxy import FileProxy

        if isinstance(sys.stderr, FileProxy):
            sys.stderr = self._stderr


class _Picture:
    """An object whose representation a notebook shows in the output of a cell."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class NotebookDisplay:
    """A bar with counts in the output of the cell, updated in place."""

    def __init__(self) -> None:
        show: Any = importlib.import_module("IPython.display").display
        self._handle = show(_Picture("starting"), display_id=True)

    def show(self, snapshot: Snapshot) -> None:
        """Replace the shown snapshot."""
        self._handle.update(_Picture(_as_text(snapshot)))

    def note(self, text: str) -> None:
        """Print a sentence."""
        sys.stderr.write(f"{text}\n")

    def finish(self, snapshot: Snapshot) -> None:
        """Show the last snapshot, the failures, and the next command."""
        from dataclasses import replace

        text = _as_text(replace(snapshot, errors=()))
        self._handle.update(_Picture("\n".join([text, *last_lines(snapshot)])))

    def pause(self) -> None:
        """Do nothing: the output of a cell does not interfere with a question."""

    def resume(self) -> None:
        """Do nothing: there is nothing to redraw."""


def _as_text(snapshot: Snapshot) -> str:
    from rich.console import Console

    output = io.StringIO()
    Console(file=output, width=NOTEBOOK_COLUMNS, no_color=True, force_jupyter=False).print(drawn(snapshot))
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().splitlines())


class SteadyDisplay:
    """A display whose failures do not affect the run: the terminal may be gone, standard error closed, the disk full.

    After a failure, progress is logged instead.

    Args:
        make: creates the display; that may fail, too.
    """

    def __init__(self, make: Callable[[], Display]) -> None:
        self._display: Display | None = None
        try:
            self._display = make()
        except Exception as error:
            self._give_up(error)

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self._attempt(lambda display: display.show(snapshot))

    def note(self, text: str) -> None:
        """Show a sentence about the run."""
        self._attempt(lambda display: display.note(text))

    def finish(self, snapshot: Snapshot) -> None:
        """Show the last snapshot and close the display; if that fails, log the snapshot."""
        if not self._attempt(lambda display: display.finish(snapshot)):
            self._attempt(lambda display: display.finish(snapshot))

    def pause(self) -> None:
        """Clear the terminal for a question."""
        self._attempt(lambda display: display.pause())

    def resume(self) -> None:
        """Continue after the question."""
        self._attempt(lambda display: display.resume())

    def _attempt(self, action: Callable[[Display], None]) -> bool:
        """Call the display; return whether it worked."""
        if self._display is None:
            return False
        try:
            action(self._display)
        except Exception as error:
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        former, self._display = self._display, None
        if isinstance(former, LiveDisplay):
            former.abandon()
        replace_closed_streams()
        replace_broken_standard_error()
        if not isinstance(former, LogDisplay):
            self._display = LogDisplay()
            self._attempt(lambda _: logger.debug("Progress can no longer be shown: %s", error))


def shows_live() -> bool:
    """Return whether standard error is a terminal that supports drawing."""
    return is_terminal(sys.stderr) and os.environ.get("TERM", "") not in ("", "dumb")


def in_notebook() -> bool:
    """Return whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def default_display() -> Display:
    """Return the display that suits the environment of the script."""
    if shows_live():
        return LiveDisplay()
    root = logging.getLogger("jobmon")
    if root.isEnabledFor(logging.INFO) and root.hasHandlers():
        return LogDisplay()
    return NotebookDisplay() if in_notebook() else LineDisplay()


def configure_logging() -> None:
    """Send Jobmon's log to standard error. A second call changes nothing."""
    root = logging.getLogger("jobmon")
    if not any(getattr(handler, "is_jobmon", False) for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.is_jobmon = True  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
