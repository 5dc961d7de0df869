"""Whole workflows that request GPUs and licences of this machine."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
from jobmon.client.api import Tool

tool = Tool("devices")
template = tool.get_task_template("use", command_template=sys.argv[1] + " # {number}", node_args=["number"])
workflow = tool.create_workflow(workflow_args=sys.argv[2], default_cluster_name="multiprocess")
workflow.add_tasks(
    [template.create_task(number=number, compute_resources=json.loads(sys.argv[3])) for number in range(6)]
)
print(workflow.run())
"""
#: A folder of this name exists while a command holds the tokens; a second one with them would fail.
ALONE = "n=$CUDA_VISIBLE_DEVICES$JOBMON_RESOURCE_LICENCE; echo $n >> used; mkdir held-$n && sleep 0.2 && rmdir held-$n"
END_SECONDS_MAX = 120


def run_two(home, resources):
    """Run two workflows at once on two cores."""
    path = home.script(SCRIPT)
    words = [sys.executable, str(path), ALONE]
    runs = [
        subprocess.Popen([*words, name, json.dumps(resources)], cwd=home.folder, env=home.environment)
        for name in ("a", "b")
    ]
    return [run.wait(timeout=END_SECONDS_MAX) for run in runs]


def test_two_workflows_never_use_one_gpu_at_the_same_time(home):
    home.environment.update(JOBMON__MULTIPROCESS__GPUS="4,7", JOBMON__MULTIPROCESS__SLOTS="4")
    assert run_two(home, {"gpus": 1}) == [0, 0]
    used = (home.folder / "used").read_text().split()
    assert len(used) == 12, "each task ran once"
    assert set(used) == {"4", "7"}


def test_a_machine_without_what_is_asked_for_says_so_when_the_task_is_created(home):
    home.environment.update(JOBMON__MULTIPROCESS__GPUS="none")
    finished = home.python(home.script(SCRIPT), "true", "a", json.dumps({"gpus": 1}))
    assert finished.returncode != 0
    assert "gpus 1: this machine has none (see the setting multiprocess.gpus)" in finished.stderr
