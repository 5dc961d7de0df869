"""A distributor finds and keeps undelivered reports on disk."""

import json
import os
from pathlib import Path

import pytest

from jobmon.agent import journal, settlement
from jobmon.agent.undelivered import reports_in
from jobmon.core import wire
from jobmon.core.wire.launching import Report, WorkerReportRequest
from jobmon.distributor import undelivered
from jobmon.distributor.undelivered import UndeliveredReports


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "data" / "logs" / "3"
    folder.mkdir(parents=True)
    return folder


def keep(logs, identity, where="reports", **changes):
    """Keep a report as a worker does, or as one of an earlier version did."""
    report = {"task_instance_id": identity, "status": "D", **changes}
    content = json.dumps({"reports": [report], "alive": []}).encode()
    if where == "reports":
        return journal.keep(str(logs.parent.parent), 3, identity, content, "cafe")
    path = logs / str(identity // 1000) / f"{identity}.report"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def ids(reports):
    return [report.task_instance_id for report in reports]


def names(logs):
    return sorted(path.name for path in (logs.parent.parent / "reports" / "3").iterdir())


@pytest.mark.parametrize("where", ["reports", "beside the logs"])
def test_only_what_is_asked_for_is_read_and_it_stays_until_it_is_recorded(logs, where):
    for identity in (1, 2, 1001):
        keep(logs, identity, where)
    found = UndeliveredReports(str(logs), "cafe")
    assert ids(found.read({1, 1001, 7})) == [1, 1001]
    found.remove([1])
    assert ids(found.read({1, 2, 1001})) == [2, 1001]
    assert ids(found.read_all()) == [2, 1001]


def test_reports_for_another_server_are_left_alone(logs):
    keep(logs, 1)
    assert UndeliveredReports(str(logs), "beef").read_all() == []
    assert ids(UndeliveredReports(str(logs)).read_all()) == [1]


def test_a_damaged_report_is_put_aside_and_said(logs, caplog):
    keep(logs, 1, status=5)
    good = keep(logs, 2)
    assert ids(UndeliveredReports(str(logs)).read({1, 2})) == [2]
    assert "is damaged" in caplog.text
    assert names(logs) == ["1-cafe.report.damaged", "2-cafe.report"]
    assert json.loads(Path(good).read_text())["alive"] == []


def test_reading_is_bounded(logs, monkeypatch):
    monkeypatch.setattr(undelivered, "FILES_MAX", 2)
    for identity in range(5):
        keep(logs, identity)
    found = UndeliveredReports(str(logs))
    assert len(found.read(set(range(5)))) == 2
    found.remove([0, 1])
    assert ids(found.read(set(range(5)))) == [2, 3]


def test_what_a_server_does_not_know_is_sent_to_its_next_incarnation(logs):
    found = UndeliveredReports(str(logs), "cafe")
    report = Report(task_instance_id=7, status="D", exit_code=0)
    found.set_aside(report, settlement.UNKNOWN, "1")
    assert names(logs) == ["7-cafe.report.unknown-1"]
    assert (found.read_all(), found.take_back("1")) == ([], [])
    assert found.take_back("2") == [report]
    assert names(logs) == ["7-cafe.report"]


def test_what_a_server_cannot_read_stays_aside(logs):
    found = UndeliveredReports(str(logs), "cafe")
    path = found.set_aside(Report(task_instance_id=7, status="D"), settlement.FAULTY, "1")
    assert names(logs) == ["7-cafe.report.refused"]
    assert (found.read_all(), found.take_back("2")) == ([], [])
    assert reports_in(Path(path).read_bytes())[0]["task_instance_id"] == 7


def test_where_nothing_can_be_written_that_is_said_once(logs, caplog):
    (logs.parent.parent / "reports").write_text("")
    found = UndeliveredReports(str(logs), "cafe")
    for _ in range(3):
        assert found.set_aside(Report(task_instance_id=7, status="D"), settlement.FAULTY, "1") is None
    assert caplog.text.count("cannot be saved to disk") == 1


def test_a_folder_of_somebody_else_is_not_read(logs, caplog):
    keep(logs, 1)
    os.chmod(logs.parent.parent / "reports" / "3", 0o777)
    assert UndeliveredReports(str(logs)).read_all() == []
    assert "chmod go-w" in caplog.text


def test_workers_and_distributors_read_each_other(logs):
    content = wire.encode(WorkerReportRequest(reports=[Report(task_instance_id=7, status="D")]))
    assert reports_in(content)[0]["status"] == "D"
