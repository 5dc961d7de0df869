"""The progress display of a run."""

from __future__ import annotations

import io
import logging
import sys
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from jobmon.client.displays import (
    LineDisplay,
    LiveDisplay,
    LogDisplay,
    SteadyDisplay,
    configure_logging,
    default_display,
)
from jobmon.client.progress import (
    Observer,
    Outlook,
    Snapshot,
    TemplateLine,
    drawn,
    first_line,
    grouped,
    last_lines,
    line_of,
    time_text,
)
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.wire.monitoring import ProgressResponse, TemplateProgress
from jobmon.core.wire.swarm import TaskError


class State:
    """The part of a swarm's state that is shown."""

    def __init__(self, **counts):
        self.counts = counts
        self.asked = 0

    on_hold = frozenset()

    def count_by_status(self):
        self.asked += 1
        return {TaskStatus[name]: number for name, number in self.counts.items()}

    @property
    def total_tasks(self):
        return sum(self.counts.values())


class Shown:
    """A display that remembers."""

    def __init__(self):
        self.snapshots = []

    def show(self, snapshot):
        self.snapshots.append(snapshot)

    finish = show

    def note(self, text): ...

    def pause(self): ...

    def resume(self): ...


ERROR = TaskError(
    task_id=1,
    task_name="step_a-1",
    task_instance_id=1,
    status="E",
    time=datetime(2026, 1, 1, tzinfo=UTC),
    cause="exit code",
    error="\n  no such file\nmore",
    exit_code=1,
    host="here",
)


def test_counts_are_grouped_under_words():
    assert grouped({TaskStatus.REGISTERING: 2, TaskStatus.ADJUSTING_RESOURCES: 1, TaskStatus.DONE: 4}) == {
        "waiting": 3,
        "queued": 0,
        "running": 0,
        "done": 4,
        "failed": 0,
    }


def test_texts():
    assert time_text(3725.9) == "1:02:05"
    assert first_line("\n\n  a\nb") == "a"
    assert first_line("") == ""
    assert len(first_line("x" * 500)) == 160
    snapshot = Snapshot(title="w", counts={"done": 9, "failed": 0}, total=10, done_before=4, elapsed_seconds=2.5)
    assert line_of(snapshot) == "w: 9 done of 10; 2.0/s, 0:00:02"


@pytest.mark.parametrize(
    ("waiting", "held", "text"), [(2, 1, "2 waiting (1 held)"), (1, 3, "1 waiting (1 held)"), (0, 1, "")]
)
def test_tasks_that_wait_because_they_are_held_are_counted(waiting, held, text):
    snapshot = Snapshot(title="w", counts={"waiting": waiting, "done": 9}, total=9 + waiting, held=held)
    assert line_of(snapshot) == f"w: {text}{', ' if text else ''}9 done of {9 + waiting}; 0.0/s, 0:00:00"
    output = io.StringIO()
    Console(file=output, width=60).print(drawn(snapshot))
    assert text in output.getvalue()


def test_observer_counts_at_most_four_times_a_second():
    now = [100.0]
    progress = []
    observer = Observer("w", Shown(), lambda limit: [], lambda: progress.append(1), monotonic=lambda: now[0])
    state = State(REGISTERING=2)
    for step in range(9):
        now[0] = 100.0 + step / 8
        observer.on_change(state)
    assert state.asked == 5
    state.counts = {"DONE": 1, "REGISTERING": 1}
    now[0] += 1
    observer.on_change(state)
    assert progress == [1]


def test_the_last_of_several_changes_is_shown_though_none_follows():
    shown = Shown()
    observer = Observer("w", shown, lambda limit: [])
    observer.start()
    for counts in ({"REGISTERING": 1}, {"QUEUED": 1}, {"RUNNING": 1}):
        observer.on_change(State(**counts))
    deadline = time.monotonic() + 10
    while not (shown.snapshots and shown.snapshots[-1].counts["running"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    observer.finish()


def test_observer_shows_errors_of_failed_tasks_and_the_last_state():
    shown = Shown()
    observer = Observer("w", shown, lambda limit: [ERROR])
    observer.start()
    observer.on_change(State(REGISTERING=1))
    observer.on_change(State(ERROR_FATAL=1))
    observer.finish()
    assert shown.snapshots[-1].counts["failed"] == 1
    assert shown.snapshots[-1].errors == ("task 1 step_a-1: no such file",)


def test_a_server_that_is_away_does_not_hurt_the_display():
    def fetch(limit):
        raise ServerUnavailable

    observer = Observer("w", Shown(), fetch)
    observer.on_change(State(ERROR_FATAL=1))
    observer.finish()
    assert observer.snapshot().errors == ()


def test_lines_come_less_and_less_often(caplog):
    caplog.set_level(logging.INFO, "jobmon")
    display = LogDisplay()
    for second in range(60):
        display.show(Snapshot(title="w", elapsed_seconds=float(second)))
    assert len(caplog.records) == 4
    display.finish(Snapshot(title="w", errors=("a: bad",)))
    assert caplog.messages[-1] == "a: bad"


def test_without_a_terminal_failures_name_the_workflow_and_the_command_that_shows_them(caplog):
    caplog.set_level(logging.WARNING, "jobmon")
    observer = Observer("w", LogDisplay(), lambda limit: [ERROR], workflow_id=7)
    observer.on_change(State(DONE=2, ERROR_FATAL=1))
    observer.finish()
    assert caplog.messages == [
        "task 1 step_a-1: no such file",
        "1 of 3 tasks of workflow 7 failed: jobmon workflow errors 7",
    ]


def test_without_failures_there_is_no_warning(caplog):
    caplog.set_level(logging.WARNING, "jobmon")
    LogDisplay().finish(Snapshot(title="w", counts={"done": 3}, total=3, workflow_id=7))
    assert caplog.messages == []


def test_lines_go_to_standard_error_where_nobody_set_logging_up(root_logger, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    display = default_display()
    assert type(display) is LineDisplay
    display.note("It times out.")
    for second in range(60):
        display.show(Snapshot(title="w", elapsed_seconds=float(second)))
    display.finish(Snapshot(title="w", counts={"done": 3}, total=3, workflow_id=7, errors=("a: bad",)))
    lines = sys.stderr.getvalue().splitlines()
    assert lines[0] == "It times out."
    assert len(lines) == 1 + 4 + 1 + 2
    assert lines[-2:] == ["a: bad", "Workflow 7 is done: jobmon workflow status 7"]


def test_what_is_said_at_the_end():
    def said(done, failed, errors=(), total=3):
        counts = {"done": done, "failed": failed}
        return last_lines(Snapshot(title="w", counts=counts, total=total, errors=errors, workflow_id=7))

    assert said(3, 0) == ["Workflow 7 is done: jobmon workflow status 7"]
    assert said(2, 1, ("x",)) == ["x", "1 of 3 tasks of workflow 7 failed: jobmon workflow errors 7"]
    assert said(2, 0) == [], "an error says more"


def test_counts_and_the_table_are_of_the_same_moment():
    def fetch():
        done = {TaskStatus.DONE.value: 4, TaskStatus.RUNNING.value: 1}
        names = [TemplateProgress(name=name, counts=done, seconds=1.0) for name in ("fit", "plot")]
        return ProgressResponse(
            workflow_id=1, status="R", templates=names, left_from=None, left_to=None, unknown=0, blocked=0
        )

    now = [0.0]
    observer = Observer("w", Shown(), lambda limit: [], monotonic=lambda: now[0], fetch_progress=fetch)
    observer.on_change(State(DONE=5, RUNNING=5))
    assert observer.snapshot().counts["done"] == 5
    now[0] = 2.0
    observer._outlook.learn()
    snapshot = observer.snapshot()
    assert snapshot.counts == {"waiting": 0, "queued": 0, "running": 2, "done": 8, "failed": 0}
    assert [line.counts["done"] for line in snapshot.templates] == [4, 4]
    observer.finish()
    assert observer._display.snapshots[-1].counts["done"] == 5, "the last one counts exactly"


def test_headings_are_not_cut_on_a_narrow_terminal():
    output = io.StringIO()
    lines = tuple(TemplateLine(name="n" * 60, counts=grouped({}), seconds=1.0) for _ in range(2))
    Console(file=output, width=50).print(drawn(Snapshot(title="w", templates=lines)))
    assert {"waiting", "queued", "running", "done", "failed"} <= set(output.getvalue().split())


def test_a_question_takes_the_picture_away_so_that_it_is_not_there_twice(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # on others nothing is erased
    output = io.StringIO()
    display = LiveDisplay(Console(file=output, force_terminal=True, width=80))
    display.show(Snapshot(title="w"))
    output.seek(0)
    output.truncate()
    display.pause()
    assert "\x1b[2K" in output.getvalue(), "lines are erased"
    display.finish(Snapshot(title="w", workflow_id=7, counts={"done": 1}, total=1))
    assert output.getvalue().rstrip().endswith("Workflow 7 is done: jobmon workflow status 7")


def test_live_display_draws_on_a_terminal():
    output = io.StringIO()
    display = LiveDisplay(Console(file=output, force_terminal=True, width=120))
    snapshot = Snapshot(title="census", counts={"done": 3, "failed": 1}, total=5, errors=("a: bad",))
    display.show(snapshot)
    display.pause()
    display.show(Snapshot(title="hidden"))
    display.finish(snapshot)
    text = output.getvalue()
    assert "census" in text
    assert "a: bad" in text
    assert "hidden" not in text


@pytest.fixture
def root_logger():
    root = logging.getLogger("jobmon")
    before = (list(root.handlers), root.level)
    root.handlers.clear()  # a command that an earlier test ran in this process may have set logging up
    root.setLevel(logging.NOTSET)
    yield root
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def test_logging_is_set_up_once(root_logger):
    count = len(root_logger.handlers)
    configure_logging()
    configure_logging()
    assert len(root_logger.handlers) == count + 1


def test_templates_and_the_time_left_are_asked_for_now_and_then_and_drawn():
    now, asked = [0.0], []

    def fetch():
        asked.append(now[0])
        now[0] += 1.0  # the answer takes so long
        names = [f"t{number}" for number in range(12)]
        counts = {TaskStatus.DONE.value: 2, TaskStatus.RUNNING.value: 1}
        return ProgressResponse(
            workflow_id=1,
            status="R",
            templates=[TemplateProgress(name=name, counts=counts, seconds=1.234) for name in names],
            left_from=60.0,
            left_to=3700.0,
            unknown=1,
            blocked=0,
        )

    outlook = Outlook(fetch, lambda: now[0])
    for now[0] in (0.0, 0.9, 1.0, 5.0, 21.9, 22.0):
        outlook.learn()
    assert asked == [1.0, 22.0]  # no more than a twentieth of the time is spent so
    text = io.StringIO()
    console = Console(file=text, width=80)
    snapshot = Snapshot(title="w", templates=outlook.templates, left=outlook.left)
    console.print(drawn(snapshot))
    assert "0:01:00 to 1:01:40 left, and 1 task of unknown length" in text.getvalue()
    assert "1.23 s" in text.getvalue()
    assert "and 2 more templates" in text.getvalue()
    assert line_of(snapshot).endswith(", 0:01:00 to 1:01:40 left, and 1 task of unknown length")


def test_that_the_server_does_not_say_how_it_goes_on_is_no_reason_to_stop():
    def fetch():
        raise ServerUnavailable

    outlook = Outlook(fetch, wait_first=False)
    outlook.learn()
    assert (outlook.left, outlook.templates) == ("", ())


class Failing(Shown):
    """A display of which a method fails from some call on."""

    def __init__(self, method, error):
        super().__init__()
        self._error = error
        setattr(self, method, self._fail)

    def _fail(self, *_):
        raise self._error


_ERRORS = [
    OSError(5, "Input/output error"),
    BrokenPipeError(),
    ValueError("I/O operation on closed file."),
    KeyError(1),
]


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", ["show", "finish", "pause", "resume"])
def test_a_display_that_fails_is_replaced_by_the_log_and_fails_nobody(method, error, caplog):
    caplog.set_level(logging.INFO)
    display = SteadyDisplay(lambda: Failing(method, error))
    last = Snapshot(title="w", counts={"done": 1, "failed": 1}, total=2, workflow_id=7)
    for _ in range(2):
        display.show(last)
        display.pause()
        display.resume()
    display.finish(last)
    assert "1 of 2 tasks of workflow 7 failed" in caplog.text


def test_a_display_that_cannot_be_made_fails_nobody(caplog):
    def make():
        raise OSError

    display = SteadyDisplay(make)
    display.finish(Snapshot(title="w", counts={"failed": 1}, total=1, workflow_id=7))
    assert "1 of 1 task of workflow 7 failed" in caplog.text


class Terminal(io.StringIO):
    """A terminal that is gone after some writes."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes

    def isatty(self):
        return True

    def write(self, text):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("writes", range(12))
def test_a_terminal_may_be_gone_at_any_write(writes):
    before = sys.stderr
    terminal = Terminal(writes)
    display = SteadyDisplay(lambda: LiveDisplay(Console(file=terminal, force_terminal=True, width=80)))
    for done in range(3):
        display.show(Snapshot(title="w", counts={"done": done}, total=3))
    display.pause()
    display.resume()
    display.finish(Snapshot(title="w", counts={"done": 3}, total=3))
    assert sys.stderr is before


def test_a_closed_standard_error_fails_nobody(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(closed)])
    observer = Observer("w", SteadyDisplay(default_display), lambda limit: [ERROR], workflow_id=7)
    observer.start()
    observer.on_change(State(ERROR_FATAL=1))
    observer.finish()
    sys.stderr.write("it is open again")
    sys.stderr.close()
