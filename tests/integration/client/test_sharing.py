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

name, folder, count, cores, seconds = sys.argv[1:]
tool = Tool("sharing")
template = tool.get_task_template("log", "{command}", node_args=["command"])
log = f"{folder}/{name}"
note = 'echo "{sign} {cores} $(date +%s.%N)" >> {log}'
command = note.replace("{sign}", "+") + "; sleep {seconds}; " + note.replace("{sign}", "-") + " # {number}"
workflow = tool.create_workflow(name)
workflow.add_tasks(
    template.create_task(
        command=command.format(cores=cores, log=log, seconds=seconds, number=number),
        compute_resources={"cores": int(cores)},
        cluster_name="multiprocess",
    )
    for number in range(int(count))
)
assert workflow.run() == "D"
"""


def _start(name, folder, count, *, cores=1, seconds=0.05):
    environment = {**os.environ, "JOBMON__MULTIPROCESS__SLOTS": str(SLOTS)}
    words = [sys.executable, "-c", SCRIPT, name, str(folder), str(count), str(cores), str(seconds)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(*scripts):
    for script in scripts:
        _, errors = script.communicate(timeout=60)
        assert script.returncode == 0, errors


def _events(*logs):
    """When cores were taken and given back, in order; a command that ends leaves before the next one comes."""
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

    _finish(_start("left", tmp_path, 25), _start("right", tmp_path, 25))
    left, right = tmp_path / "left", tmp_path / "right"
    assert _cores_at_once(left, right) <= SLOTS
    assert _span(left)[0] < _span(right)[1]
    assert _span(right)[0] < _span(left)[1]  # neither waited for the other's end


def test_a_wide_task_gets_its_turn_beside_many_narrow_ones(tmp_path):
    narrow = _start("narrow", tmp_path, 60, seconds=0.1)
    while not (tmp_path / "narrow").exists():
        assert narrow.poll() is None
        time.sleep(0.01)
    wide = _start("wide", tmp_path, 2, cores=2)
    _finish(narrow, wide)
    assert _cores_at_once(tmp_path / "narrow", tmp_path / "wide") <= SLOTS
    assert _span(tmp_path / "wide")[0] < _span(tmp_path / "narrow")[1]
