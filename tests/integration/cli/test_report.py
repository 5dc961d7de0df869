"""The report of a workflow: its attempts as CSV, and the page as one file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from datetime import datetime

from jobmon.cli import report


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_there_is_a_line_for_each_attempt_with_everything_recorded(session):
    number = session.workflows["failed"]
    found = rows(session.invoke("workflow", "report", "-w", number, "--format", "csv"))
    assert {row["task"] for row in found} >= {f"work_{region}_{n}" for region in ("good", "bad") for n in range(12)}
    assert len({(row["task_id"], row["attempt"]) for row in found}) == len(found)
    bad = next(row for row in found if row["task"] == "work_bad_3")
    assert (bad["template"], bad["task_status"], bad["attempt"], bad["status"]) == ("work", "ERROR_FATAL", "1", "ERROR")
    assert (bad["exit_code"], bad["charged"], bad["cluster"]) == ("3", "true", "multiprocess")
    assert datetime.fromisoformat(bad["started_at"]) <= datetime.fromisoformat(bad["ended_at"])
    assert "after_bad" not in {row["task"] for row in found}


def test_a_file_is_written_completely_or_not_at_all(session, tmp_path):
    number, path = session.workflows["failed"], tmp_path / "attempts.csv"
    assert "Wrote" in session.both("workflow", "report", number, "--format", "csv", "-o", path)
    assert rows(path.read_text())[0]["task"]
    missing = tmp_path / "missing" / "report.html"
    assert "cannot be written" in session.invoke("workflow", "report", number, "-o", missing, code=2)
    assert [one.name for one in tmp_path.iterdir()] == ["attempts.csv"]


def test_a_report_is_one_file_with_the_most_important_tasks_first(session, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "DETAILED_MAX", 2)
    monkeypatch.setattr(report, "TASKS_MAX", 20)
    number, path = session.workflows["failed"], tmp_path / "report.html"
    session.invoke("workflow", "report", number, "-o", path)
    text = path.read_text()
    (data,) = re.findall(r'<script type="application/json" id="recorded">(.*?)</script>', text, re.DOTALL)
    held = json.loads(data)
    assert held["workflow_id"] == number
    tasks = held["answers"][f"/workflows/{number}/task_summaries"]
    assert ([one["status"] for one in tasks["tasks"]], tasks["total"]) == (["F"] * 13 + ["G"] * 2 + ["D"] * 5, 27)
    assert len([path for path in held["answers"] if re.fullmatch(r"/tasks/\d+", path)]) == 2
    assert len(held["answers"][f"/workflows/{number}/matrix"]["statuses"]) == 27
    assert re.findall(r"""(?:src|href)=["'](?!#)""", text.replace(data, "")) == []


def test_a_workflow_that_is_not_there_is_named(session, tmp_path):
    assert "There is no workflow 4711" in session.invoke("workflow", "report", 4711, "-o", tmp_path / "x", code=2)
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_pipes_are_written_and_nothing_else_is_replaced(session, tmp_path):
    number, target, pipe = session.workflows["failed"], tmp_path / "real.csv", tmp_path / "pipe"
    (tmp_path / "link.csv").symlink_to(target)
    session.invoke("workflow", "report", number, "--format", "csv", "-o", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert rows(target.read_text())[0]["task"]
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # a pipe holds 64 KiB
    session.invoke("workflow", "report", number, "--format", "csv", "-o", pipe)
    assert os.read(reader, 5) == b"task_"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for words in (("workflow", "report", number, "-o"), ("db", "export", number, "--file"), ("db", "backup")):
        for path in ("", tmp_path):
            assert "is not the name of a file" in session.invoke(*words, path, code=2) or path
    assert "is not a regular file" in session.invoke("db", "backup", pipe, code=2)
