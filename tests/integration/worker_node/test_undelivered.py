"""Undelivered reports on disk: private, delivered once, not lost to a full disk or another user's files."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from jobmon.agent import journal
from jobmon.agent.undelivered import Undelivered

REPORT = {"task_instance_id": 7, "status": "D"}


def store(folder, identity="cafe", incarnation="1", beside_logs=""):
    said = []
    return Undelivered(str(folder), 3, identity, incarnation, said.append, lambda: 0.0, str(beside_logs)), said


def content_of(identity=7):
    return json.dumps({"reports": [{**REPORT, "task_instance_id": identity}], "alive": []}).encode()


def names(folder):
    return sorted(path.name for path in (folder / "reports" / "3").iterdir())


@pytest.fixture
def open_umask():
    before = os.umask(0o000)
    yield
    os.umask(before)


def test_a_kept_report_is_private_whatever_the_umask_is(tmp_path, open_umask):
    path = store(tmp_path / "data")[0].keep(REPORT)
    assert path == str(tmp_path / "data" / "reports" / "3" / "7-cafe.report")
    modes = [stat.S_IMODE(os.stat(one).st_mode) for one in (path, os.path.dirname(path), tmp_path / "data" / "reports")]
    assert modes == [0o600, 0o700, 0o700]


def test_what_is_kept_is_found_with_its_path(tmp_path):
    one, said = store(tmp_path)
    path = one.keep(REPORT)
    assert list(one.found()) == [(path, REPORT)]
    assert said == []


def test_what_is_settled_is_removed(tmp_path):
    one, _ = store(tmp_path)
    assert one.keep_all([REPORT, {**REPORT, "task_instance_id": 8, "status": "R"}])
    assert names(tmp_path) == ["7-cafe.report"]
    one.forget([{**REPORT, "status": "R"}])
    assert names(tmp_path) == ["7-cafe.report"]
    one.forget([REPORT])
    assert names(tmp_path) == []


def test_reports_for_another_server_are_left_alone(tmp_path):
    store(tmp_path, "cafe")[0].keep(REPORT)
    assert list(store(tmp_path, "beef")[0].found()) == []
    assert len(list(store(tmp_path, "")[0].found())) == 1
    store(tmp_path, "")[0].keep(REPORT)
    assert names(tmp_path) == ["7-cafe.report", "7.report"]


def test_a_report_about_an_unknown_attempt_waits_for_another_incarnation_of_the_server(tmp_path):
    one, said = store(tmp_path)
    assert one.set_aside(REPORT, "the attempt is unknown", "it has no attempt 7")
    assert names(tmp_path) == ["7-cafe.report.unknown-1"]
    assert "it has no attempt 7" in said[0]
    assert list(one.found()) == []
    assert [report for _, report in store(tmp_path, incarnation="2")[0].found()] == [REPORT]


def test_a_faulty_report_is_kept_and_not_sent_again(tmp_path):
    one, _ = store(tmp_path)
    assert one.keep_all([REPORT, REPORT])
    assert one.set_aside(REPORT, "faulty", "no")
    assert names(tmp_path) == ["7-cafe.report.refused"]
    assert list(store(tmp_path, incarnation="2")[0].found()) == []


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"reports": [{"task_inst', b"\xff\xfe\x00", b"[1, 2]", b"null", b'{"reports": []}', b"[" * 100_000],
)
def test_a_damaged_report_is_put_aside_and_the_others_are_found(tmp_path, damage):
    one, said = store(tmp_path)
    for identity in (1, 3):
        one.keep({**REPORT, "task_instance_id": identity})
    (tmp_path / "reports" / "3" / "2.report").write_bytes(damage)
    assert [report["task_instance_id"] for _, report in one.found()] == [1, 3]
    assert names(tmp_path) == ["1-cafe.report", "2.report.damaged", "3-cafe.report"]
    assert "damaged" in said[0]


def test_what_an_earlier_version_left_beside_the_logs_is_found(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "7.report").write_bytes(content_of())
    (logs / "fit.7.log").write_text("log")
    one, _ = store(tmp_path / "data", beside_logs=logs)
    assert list(one.found()) == [(str(logs / "7.report"), REPORT)]


def planted(kind, path):
    """Put something there that is no report of ours."""
    if kind == "a link":
        path.with_name("target").write_bytes(content_of())
        path.symlink_to(path.with_name("target"))
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "too large":
        path.write_bytes(b" " * (journal.FILE_BYTES_MAX + 1))
    elif kind == "writable by everyone":
        path.write_bytes(content_of())
        path.chmod(0o666)
    else:
        path.write_bytes(content_of())
        os.chown(path, 12_345, -1)


@pytest.mark.parametrize(
    "kind", ["a link", "a pipe", "a folder", "too large", "writable by everyone", "another user's"]
)
def test_what_is_not_surely_ours_is_not_read_and_not_touched(tmp_path, kind):
    if kind == "another user's" and os.geteuid():
        pytest.skip("only root can give files away")
    logs = tmp_path / "logs"
    logs.mkdir()
    planted(kind, logs / "6.report")
    (logs / "7.report").write_bytes(content_of())
    (logs / "7.report").chmod(0o600)
    one, said = store(tmp_path / "data", beside_logs=logs)
    assert [report for _, report in one.found()] == [REPORT]
    assert "cannot be read" in said[0]
    assert os.path.lexists(logs / "6.report")


@pytest.mark.parametrize("level", ["reports", "reports/3"])
def test_a_folder_that_others_may_write_is_not_used(tmp_path, level):
    (tmp_path / "reports" / "3").mkdir(mode=0o700, parents=True)
    (tmp_path / "reports").chmod(0o700)
    (tmp_path / level).chmod(0o777)
    one, said = store(tmp_path)
    assert one.keep(REPORT) is None
    assert "chmod go-w" in said[0]
    assert str(tmp_path / level) in said[0]


def test_a_job_without_the_data_folder_has_a_private_one_that_its_environment_names(tmp_path):
    (tmp_path / "file").touch()
    environment, said = {"TMPDIR": str(tmp_path)}, []

    def make():
        data = str(tmp_path / "file" / "data")
        return Undelivered(data, 3, "cafe", "1", said.append, lambda: 0.0, "", environment)

    path = make().keep(REPORT)
    folder = environment[journal.JOB_FOLDER_VARIABLE]
    assert path == f"{folder}/reports/3/7-cafe.report"
    assert os.path.dirname(folder) == str(tmp_path)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert f"a report is kept in {path}" in said[0]
    again = make()
    assert list(again.found()) == [(path, REPORT)]
    assert again.keep({**REPORT, "task_instance_id": 8}) == f"{folder}/reports/3/8-cafe.report"
    os.chmod(folder, 0o777)
    assert make().keep(REPORT) is None
    assert list(make().found()) == []


def test_a_folder_that_is_a_link_is_not_used(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "reports").symlink_to(tmp_path / "elsewhere")
    one, said = store(tmp_path)
    assert one.keep(REPORT) is None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(said) == 1
    assert one.keep(REPORT) is None
    assert len(said) == 1, "once per minute"


def test_a_full_disk_leaves_nothing_half_written_and_no_descriptor_open(tmp_path):
    one, said = store(tmp_path)
    one.keep(REPORT)
    before = len(os.listdir("/proc/self/fd"))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        assert [one.keep({**REPORT, "log_tail": "x" * 2_000}) for _ in range(50)] == [None] * 50
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(os.listdir("/proc/self/fd")) == before
    assert names(tmp_path) == ["7-cafe.report"]
    assert len(said) == 1


def test_the_store_needs_nothing_but_the_standard_library():
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import jobmon.agent.journal, jobmon.agent.settlement, jobmon.agent.addresses\n"
        "print([m for m in sys.modules if m.startswith('jobmon.') and not m.startswith('jobmon.agent')])"
    )
    root = journal.__file__.split("/jobmon/agent/")[0]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
