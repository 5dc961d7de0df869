"""Values formatted for people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobmon.cli import listing, rendering
from jobmon.cli.main import COMMANDS, exit_code
from jobmon.core import exceptions
from jobmon.core.constants import TaskStatus
from jobmon.core.outcomes import TASK_GROUPS, group_of
from jobmon.core.wire.monitoring import WorkflowSummary


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0, "0 ms"), (0.0123, "12 ms"), (12.34, "12.3 s"), (3725, "1:02:05")]
)
def test_duration(seconds, text):
    assert rendering.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (64 * 2**20, "64.0 MiB"), (2.0**61, "2048.0 PiB")]
)
def test_size(count, text):
    assert rendering.size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (11 * 2**20, "at most 11.0 MiB"), (rendering.STARTER_BYTES_MAX, "20.0 MiB"), (2**30, "1.0 GiB")],
)
def test_a_peak_below_the_size_of_the_starting_program_is_an_upper_bound(count, text):
    assert rendering.peak(count) == text


def test_share():
    assert (rendering.share(None), rendering.share(0.4567)) == ("-", "45.7%")


def test_secrets_are_not_shown():
    shown = {"http": {"token": "abc", "timeout": 1}, "db": {"token": "", "uri": "postgresql://me:secret@host/db"}}
    rendering.hide_secret(shown, "token")
    rendering.hide_secret(shown, "uri")
    assert shown == {
        "http": {"token": "***", "timeout": 1},
        "db": {"token": "", "uri": "postgresql://me:***@host/db"},
    }


def test_tables_cut_nothing_and_know_no_markup(capsys):
    rendering.show_table(("A", "B"), [("[red]x[/red]", "y" * 200), (None, datetime(2024, 1, 1, tzinfo=UTC))])
    text = capsys.readouterr().out
    assert "[red]x[/red]" in text
    assert text.count("y") == 200
    assert max(len(line) for line in text.splitlines()) <= 80


def test_words_stay_whole_where_they_fit(capsys):
    rendering.show_table(("ATTEMPT", "STATUS", "HOW IT ENDED"), [(1, "RESOURCE_ERROR", "killed by signal 9 " * 8)])
    lines = capsys.readouterr().out.splitlines()
    assert any("RESOURCE_ERROR" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_short_values_stay_whole_where_long_ones_are_folded(capsys):
    heads = ("ID", "NAME", "ARGS", "STATUS", "TASKS", "PENDING", "RUNNING", "DONE", "FATAL", "SINCE")
    rows = [(31, "overnight_simulations", "release-2026-10", "STOPPED", 5, 2, 0, 3, 0, "11:41:32")]
    rendering.show_table(heads, rows, right=("ID", "TASKS"))
    text = capsys.readouterr().out
    assert "STOPPED" in text
    assert "11:41:32" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
def test_headings_are_never_broken(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    heads = ("ID", "NAME", "STATUS", "TASKS", "PENDING", "RUNNING", "DONE", "FATAL", "SINCE")
    rendering.show_table(heads, [(n, "name of it", "RUNNING", 3, 1, 1, 1, 0, "2024-01-01 10:10") for n in (1, 2)])
    text = capsys.readouterr().out
    assert all(head in text for head in heads)
    assert text.count("PENDING") == (1 if columns >= 80 else 2)
    assert text.count("name of it") == 2


@pytest.mark.parametrize(("name", "shown"), [("", "tool"), ("line\nend", "line␊end")])
def test_a_workflow_without_a_name_is_listed_by_its_tool_and_each_on_one_line(name, shown):
    now = datetime(2024, 1, 1, tzinfo=UTC)
    summary = WorkflowSummary(
        workflow_id=5,
        name=name,
        workflow_args="x\ny",
        tool_name="tool",
        user="ada",
        status="D",
        created_at=now,
        status_at=now,
        counts={"D": 1},
        task_count=1,
        attempt_count=1,
        last_workflow_run_id=None,
    )
    assert listing._row(summary, (), (1,))[:4] == (5, shown, "x␊y", "DONE")


def test_every_task_status_is_in_a_group():
    assert {group_of(status.value) for status in TaskStatus} == {*TASK_GROUPS, "REMOVED"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.ServerUnavailable(), 3),
        (exceptions.ConfigError("x"), 2),
        (exceptions.InvalidRequest("x"), 2),
        (exceptions.DistributorNotAlive(), 1),
        (exceptions.WorkflowAlreadyComplete(), 1),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


def test_every_command_can_be_loaded():
    import importlib

    for module, name, _ in COMMANDS.values():
        assert getattr(importlib.import_module(module), name).name == name
