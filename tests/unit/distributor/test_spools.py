"""Reports that workers left on disk, read by a distributor."""

import json
from pathlib import Path

from jobmon.distributor import spools
from jobmon.distributor.spools import Spools
from jobmon.worker_node import spool


def _keep(folder, identity, **changes):
    report = {"task_instance_id": identity, "status": "D", **changes}
    return spool.keep(str(folder / str(identity // 1000)), identity, {"reports": [report], "alive": []})


def test_both_sides_use_the_same_names():
    assert (spools.SUFFIX, spools.DAMAGED_SUFFIX) == (spool.SUFFIX, spool.DAMAGED_SUFFIX)


def test_only_what_is_asked_for_is_read_and_it_stays_until_it_is_recorded(tmp_path):
    for identity in (1, 2, 1001):
        _keep(tmp_path, identity)
    found = Spools(str(tmp_path))
    assert [report.task_instance_id for report in found.read({1, 1001, 7})] == [1, 1001]
    found.remove([1])
    assert [report.task_instance_id for report in found.read({1, 2, 1001})] == [2, 1001]


def test_a_damaged_report_is_put_aside_and_said(tmp_path, caplog):
    _keep(tmp_path, 1, status=5)
    good = _keep(tmp_path, 2)
    assert [report.task_instance_id for report in Spools(str(tmp_path)).read({1, 2})] == [2]
    assert "is damaged" in caplog.text
    names = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert names == ["1.report.damaged", "2.report"]
    assert json.loads(Path(good).read_text())["alive"] == []


def test_reading_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(spools, "FILES_MAX", 2)
    for identity in range(5):
        _keep(tmp_path, identity)
    found = Spools(str(tmp_path))
    assert len(found.read(set(range(5)))) == 2
    found.remove([0, 1])
    assert [report.task_instance_id for report in found.read(set(range(5)))] == [2, 3]
