"""Scripts that run at the same time share the cores of their host."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.usefixtures("data_directory")
SLOTS = 2

SCRIPT = """
import sys
from jobmon.client.api import Tool

name, folder, count, cores, work = sys.argv[1:]
tool = Tool("sharing")
template = tool.get_task_template("log", "{command}", node_args=["command"])
log = f"{folder}/{name}"
note = 'echo "{sign} {cores} $(date +%s.%N)" >> {log}'
command = note.replace("{sign}", "+") + "; {work}; " + note.replace("{sign}", "-") + " # {number}"
workflow = tool.create_workflow(name)
workflow.add_tasks(
    template.create_task(
        command=command.format(cores=cores, log=log, work=work, number=number),
        compute_resources={"cores": int(cores)},
        cluster_name="multiprocess",
    )
    for number in range(int(count))
)
assert workflow.run() == "D"
"""


def _start(name, folder, count, *, cores=1, work="sleep 0.05"):
    environment = {**os.environ, "JOBMON__MULTIPROCESS__SLOTS": str(SLOTS)}
    words = [sys.executable, "-c", SCRIPT, name, str(folder), str(count), str(cores), work]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(*scripts):
    for script in scripts:
        _, errors = script.communicate(timeout=60)
        assert script.returncode == 0, errors


def _events(*logs):
    """Return when cores were taken and returned, in order; an exit precedes a start at the same time."""
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    return sorted((float(time), -float(cores) if sign == "-" else float(cores)) for sign, cores, time in lines)


def _cores_at_once(*logs):
    running = most = 0.0
    for _, change in _events(*logs):
        running += change
        most = max(most, running)
    assert running == 0
    return most


def _span(log):
    times = [at for at, _ in _events(log)]
    return times[0], times[-1]


def test_two_scripts_share_the_slots_and_a_lone_one_has_all(tmp_path):
    _finish(_start("lone", tmp_path, 4))
    assert _cores_at_once(tmp_path / "lone") == SLOTS

    left, right = tmp_path / "left", tmp_path / "right"
    goes_on = "[ -e {} ] || sleep 0.1"  # there is work until the other has begun, too
    _finish(
        _start("left", tmp_path, 300, work=goes_on.format(right)),
        _start("right", tmp_path, 300, work=goes_on.format(left)),
    )
    assert _cores_at_once(left, right) <= SLOTS
    assert _span(left)[0] < _span(right)[1]
    assert _span(right)[0] < _span(left)[1]  # neither waited for the other's end


def test_a_wide_task_gets_its_turn_beside_many_narrow_ones(tmp_path):
    narrow = _start("narrow", tmp_path, 300, work=f"[ -e {tmp_path}/wide ] || sleep 0.1")
    while not (tmp_path / "narrow").exists():
        assert narrow.poll() is None
        time.sleep(0.01)
    wide = _start("wide", tmp_path, 2, cores=2)
    _finish(narrow, wide)
    assert _cores_at_once(tmp_path / "narrow", tmp_path / "wide") <= SLOTS
    assert _span(tmp_path / "wide")[0] < _span(tmp_path / "narrow")[1]


NESTED = """
import sys
from jobmon.client.api import Tool

depth, folder, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tool = Tool("nested")
template = tool.get_task_template("level", "{python} {script} {depth} {folder} {path}", node_args=["path"],
                                  op_args=["python", "script", "depth", "folder"])
leaf = tool.get_task_template("leaf", "touch {folder}/{path}", node_args=["path"], op_args=["folder"])
workflow = tool.create_workflow(path, default_cluster_name="multiprocess")
for number in range(2):
    name = f"{path}{number}"
    if depth:
        given = {"python": sys.executable, "script": sys.argv[0], "depth": depth - 1, "folder": folder}
        workflow.add_task(template.create_task(path=name, **given))
    else:
        workflow.add_task(leaf.create_task(path=name, folder=folder))
sys.exit(workflow.run(seconds_until_timeout=50) != "D")
"""


def test_tasks_that_run_workflows_complete_though_they_fill_the_host(tmp_path):
    """Two levels of parents take all cores; the innermost commands run all the same."""
    script = tmp_path / "nested.py"
    script.write_text(NESTED)
    environment = {**os.environ, "JOBMON__MULTIPROCESS__SLOTS": str(SLOTS)}
    words = [sys.executable, str(script), "2", str(tmp_path), "p"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.glob("p???"))) == 8
