"""What people see of a run."""

from __future__ import annotations

import io
import logging
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from jobmon.client.progress import (
    LiveDisplay,
    LogDisplay,
    Observer,
    Outlook,
    Snapshot,
    configure_logging,
    drawn,
    first_line,
    grouped,
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
    assert shown.snapshots[-1].errors == ("step_a-1: no such file",)


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
        "step_a-1: no such file",
        "1 of 3 tasks of workflow 7 failed: jobmon workflow errors -w 7",
    ]


def test_without_failures_there_is_no_warning(caplog):
    caplog.set_level(logging.WARNING, "jobmon")
    LogDisplay().finish(Snapshot(title="w", counts={"done": 3}, total=3, workflow_id=7))
    assert caplog.messages == []


def test_live_display_draws_on_a_terminal():
    from rich.console import Console

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
    for now[0] in (0.0, 2.9, 3.0, 5.0, 23.9, 24.0):
        outlook.learn()
    assert asked == [3.0, 24.0]  # no more than a twentieth of the time is spent so
    text = io.StringIO()
    console = Console(file=text, width=80)
    snapshot = Snapshot(title="w", templates=outlook.templates, left=outlook.left)
    console.print(drawn(snapshot))
    assert "0:01:00 to 1:01:40 left, and 1 task of unknown length" in text.getvalue()
    assert "1.23 s" in text.getvalue()
    assert "and 2 templates more" in text.getvalue()
    assert line_of(snapshot).endswith(", 0:01:00 to 1:01:40 left, and 1 task of unknown length")


def test_that_the_server_does_not_say_how_it_goes_on_is_no_reason_to_stop():
    def fetch():
        raise ServerUnavailable

    outlook = Outlook(fetch, wait_first=False)
    outlook.learn()
    assert (outlook.left, outlook.templates) == ("", ())
