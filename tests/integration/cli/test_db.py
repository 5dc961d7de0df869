"""The database: its revision, upgrades with a copy, purges with confirmation, and exports that can be replayed."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
from alembic import command
from tests.databases import SQLITE, change, current, rows

from jobmon.client.wfformat import parse_recording
from jobmon.core.installing import INSTALL
from jobmon.server.database import open_engine
from jobmon.server.migrations.upgrading import HEAD, alembic_config, known_revisions

if TYPE_CHECKING:
    from pathlib import Path

DOOMED = """
doomed = recorded("doomed")
first = step.create_task(name="one", command="echo one")
doomed.add_tasks([first, step.create_task(name="two", command="echo two", upstream_tasks=[first])])
assert doomed.run() == "D"
print(doomed.workflow_id)
"""


#: Use the data folder, whichever server the session uses.
LOCAL = {"JOBMON__HTTP__SERVICE_URL": ""}


@pytest.fixture
def old(tmp_path):
    """A data folder whose database has the revision before the newest."""
    path = tmp_path / "data" / "jobmon.sqlite"  # that of an embedded server
    path.parent.mkdir(mode=0o700)
    engine = open_engine(f"sqlite:///{path}")
    command.upgrade(alembic_config(engine), known_revisions()[-2])
    engine.dispose()
    return path


def revision(path: Path) -> str:
    return rows(f"sqlite:///{path}", "SELECT version_num FROM migration")[0][0]


def test_the_server_in_use_is_at_the_newest_revision(session):
    found = session.json("db", "revision")
    assert (found["state"], found["revision"]) == ("current", HEAD)
    assert "nothing to do" in session.invoke("db", "upgrade")


def test_an_old_database_is_copied_and_upgraded(session, old):
    place = {"JOBMON_DATA_DIR": str(old.parent), **LOCAL}
    before = revision(old)
    assert "jobmon db upgrade" in session.invoke("db", "revision", code=1, env=place)
    assert "To confirm: --yes" in session.invoke("db", "upgrade", code=2, env=place)
    assert (revision(old), list(old.parent.glob("*.before-*"))) == (before, [])
    told = session.invoke("db", "upgrade", "--yes", env=place)
    (copy,) = old.parent.glob("*.before-*")
    assert str(copy) in told
    assert (revision(copy), revision(old)) == (before, HEAD)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "nothing to do" in session.invoke("db", "upgrade", env=place)


def test_a_newer_database_is_refused_and_none_is_made_by_looking(session, old, tmp_path):
    place = {"JOBMON_DATA_DIR": str(old.parent), **LOCAL}
    change(f"sqlite:///{old}", "UPDATE migration SET version_num = '9999'")
    assert INSTALL in session.invoke("db", "upgrade", "-y", code=2, env=place)
    assert "written by a newer version" in session.invoke("db", "revision", code=1, env=place)
    empty = {"JOBMON_DATA_DIR": str(tmp_path / "empty"), **LOCAL}
    assert "no database yet" in session.invoke("db", "revision", env=empty)
    assert not (tmp_path / "empty").exists()
    away = {"JOBMON__DB__SQLALCHEMY_DATABASE_URI": "postgresql://me:hidden@127.0.0.1:1/none"}
    text = session.invoke("db", "revision", code=1, env=away)
    assert "cannot be opened" in text
    assert "hidden" not in text


def test_an_export_holds_everything(session):
    lines = [
        json.loads(line) for line in session.invoke("db", "export", "-w", session.workflows["failed"]).splitlines()
    ]
    kinds = [line.pop("kind") for line in lines]
    tasks = {line["name"]: line for kind, line in zip(kinds, lines, strict=True) if kind == "task"}
    sets = {line["set_id"]: line["task_ids"] for kind, line in zip(kinds, lines, strict=True) if kind == "set"}
    assert (kinds[0], lines[0]["name"], lines[0]["task_count"]) == ("workflow", "failed", len(tasks))
    (number,) = tasks["last"]["upstream_sets"]
    assert sets[number] == [tasks["after_bad"]["task_id"]]
    assert tasks["work_bad_3"]["node_args"] == {"number": "3", "region": "bad"}
    (attempt,) = tasks["work_bad_3"]["attempts"]
    assert attempt["exit_code"] == 3
    assert attempt["wallclock_seconds"] >= 0
    assert tasks["last"]["attempts"] == []


def test_an_export_in_wfformat_can_be_run(session, tmp_path):
    file = tmp_path / "failed.json"
    session.invoke("db", "export", "-w", session.workflows["failed"], "--format", "wfformat", "-f", file)
    recording = parse_recording(file.read_bytes())
    assert len(recording.tasks) == 27
    by_id = {task.task_id: task for task in recording.tasks}
    last = by_id[str(session.tasks["last"])]
    assert last.parents == (str(session.tasks["after_bad"]),)
    assert by_id[str(session.tasks["work_good_3"])].runtime_seconds > 0
    ran = session.json("workflow", "run", file, "--scale", "0", "-c", "multiprocess")
    assert ran["done"] == 27


def test_what_cannot_be_exported(session, tmp_path):
    assert "There is no workflow 999" in session.invoke("db", "export", "-w", 999, code=2)
    nowhere = tmp_path / "no" / "folder.jsonl"
    text = session.invoke("db", "export", "-w", session.workflows["fine"], "-f", nowhere, code=2)
    assert "folder.jsonl cannot be written: No such file or directory." in text


def test_a_purge_asks_and_leaves_nothing(session):
    def ran(name: str) -> int:
        with session.python(session.define + DOOMED.replace("doomed", name)) as client:
            return int(client.communicate(timeout=60)[0].split()[-1])

    number = ran("doomed")
    logs = session.folder / "data" / "logs" / str(number)
    assert list(logs.rglob("*"))
    refused = session.invoke("db", "purge", "-w", number, code=2)
    assert f"{number} doomed of " in refused
    assert "1 workflow would be deleted." in refused
    assert "To confirm: --yes" in refused
    (gone,) = session.json("db", "purge", "-w", number, "--yes")
    assert (gone["tasks"], gone["log_folder"]) == (2, str(logs))
    assert not logs.exists()
    assert f"There is no workflow {number}" in session.invoke("workflow", "status", "-w", number, code=2)
    assert f"There is no workflow {number}" in session.invoke("db", "purge", "-w", number, "-y", code=2)
    assert ran("doomed") > number  # the same workflow, from the beginning
    kept = session.workflows["busy"]
    said = session.invoke("db", "purge", "-w", ran("other"), "-y")
    assert "Deleted 1 workflow with 2 tasks" in said
    assert str(kept) in session.invoke("workflow", "status", "-w", kept)
    if current().dialect == SQLITE:
        assert "A workflow is running" in session.invoke("db", "compact", code=2)
    else:
        assert "autovacuum" in session.invoke("db", "compact")


def test_what_is_run_stays_and_wrong_choices_are_named(session):
    busy = session.workflows["busy"]
    assert f"Workflow {busy} was not deleted: " in session.invoke("db", "purge", "-w", busy, "-y", code=1)
    assert session.json("workflow", "status", "-w", busy)[0]["counts"]
    assert "Choose workflows" in session.invoke("db", "purge", "-y", code=2)
    assert "did you mean DONE?" in session.invoke("db", "purge", "--status", "don", code=2)
    assert "write 30d" in session.invoke("db", "purge", "--older-than", "soon", code=2)
    assert "No workflow of yours matches" in session.invoke(
        "db", "purge", "--status", "done", "--older-than", "365d", "-y"
    )
