"""`jobmon workflow run` replays recordings on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobmon.client.wfformat import BuildOptions, parse_recording, prepare_directory, read_recording

PROJECT = Path(__file__).resolve().parents[2]
RECORDINGS = PROJECT.parent / "shared" / "data" / "wfinstances"


def recording(width: int = 4) -> dict[str, Any]:
    """A fork and a join, with odd figures: a negative time, a share above 100 %, one that is not there."""
    sides = [f"side {number}" for number in range(width)]
    files = {"in.txt": 4000, "/abs/split it's.txt": 2000} | {f"{side}.out": 1000 for side in sides}
    tasks = {"split_0001": ([], ["in.txt"], ["/abs/split it's.txt"])}
    tasks |= {side: (["split_0001"], ["/abs/split it's.txt"], [f"{side}.out"]) for side in sides}
    tasks["join_0009"] = (sides, [f"{side}.out" for side in sides], [])
    runtimes = dict(zip(tasks, [2.0, -1.0, 0.0, *([4.0] * width)], strict=False))
    shares = dict(zip(tasks, [100.4, 50.0, 180.0], strict=False))
    return {
        "name": "odd one",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {
                "tasks": [
                    {
                        "id": name,
                        "name": name,
                        "parents": above,
                        "children": [],
                        "inputFiles": read,
                        "outputFiles": made,
                    }
                    for name, (above, read, made) in tasks.items()
                ],
                "files": [{"id": name, "sizeInBytes": size} for name, size in files.items()],
            },
            "execution": {
                "makespanInSeconds": 20,
                "executedAt": "2024-01-01T00:00:00Z",
                "tasks": [
                    {"id": name, "runtimeInSeconds": runtimes[name]}
                    | ({"avgCPU": shares[name]} if name in shares else {})
                    for name in tasks
                ],
                "machines": [{"nodeName": "one", "cpu": {"coreCount": 4}}],
            },
        },
    }


@pytest.mark.parametrize("cluster", ["multiprocess", "sequential", "dummy"])
def test_a_recording_runs_and_is_compared(home, cluster):
    (home.folder / "odd.json").write_text(json.dumps(recording()))
    options = ["--cluster", cluster, "--scale", "0.05", "--directory", "kept"]
    finished = home.jobmon("workflow", "run", "odd.json", *options, "-o", "json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert (found["done"], found["failed"], found["tasks"]) == (6, 0, 6)
    assert found["recorded_scaled"]["makespan_seconds"] == 1.0
    assert found["run"]["critical_path_seconds"] == pytest.approx(0.5)
    if cluster != "dummy":
        assert found["run"]["makespan_seconds"] >= 0.5
        assert (home.folder / "kept" / "files" / "abs" / "split it's.txt").stat().st_size == 100


def test_a_missing_input_fails_the_task_and_the_command(home):
    (home.folder / "odd.json").write_text(json.dumps(recording()))
    run = ["workflow", "run", "odd.json", "--scale", "0.01", "--directory", "kept", "--workflow-args", "again"]
    options = BuildOptions(directory=home.folder / "kept", cluster_name="multiprocess", scale=0.01)
    prepare_directory(parse_recording(json.dumps(recording()).encode()), options)
    broken = home.folder / "kept" / "files" / "abs"
    broken.write_text("a file where a folder should be")
    failed = home.jobmon(*run)
    assert failed.returncode == 1, failed.stderr
    (workflow,) = home.json("workflow", "status")
    assert workflow["counts"]["F"] == 1
    assert "abs" in home.jobmon("workflow", "errors", "-w", str(workflow["workflow_id"])).stdout

    assert home.jobmon(*run).returncode != 0, "it exists: only --resume continues it"
    broken.unlink()
    resumed = home.jobmon(*run, "--resume")
    assert resumed.returncode == 0, resumed.stderr


def test_files_are_removed_when_all_is_done(home):
    (home.folder / "odd.json").write_text(json.dumps(recording()))
    assert home.jobmon("workflow", "run", "odd.json", "--scale", "0.01").returncode == 0
    assert list(Path(home.environment["JOBMON_DATA_DIR"], "recordings").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.json"], "gone.json cannot be read: No such file"),
        (["odd.json", "--cluster", "nowhere"], "nowhere"),
        (["odd.json", "--scale", "-1"], "--scale"),
        (["odd.json", "--directory", "/proc/none"], "/proc/none cannot be written"),
    ],
)
def test_wrong_use_is_told_in_a_line(home, arguments, message):
    (home.folder / "odd.json").write_text(json.dumps(recording()))
    finished = home.jobmon("workflow", "run", *arguments)
    assert finished.returncode == 2, finished.stderr
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "name",
    [
        "helloworld-forkjoin-10-chameleon.json",
        "sarek-dirt02-001.json",
        "blast-chameleon-small-001.json",
        "montage-chameleon-2mass-01d-001.json",
    ],
)
def test_real_recordings(home, name):
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not beside this checkout")
    finished = home.jobmon("workflow", "run", str(RECORDINGS / name), "--scale", "0.001", "-o", "json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert (found["done"], found["failed"]) == (found["tasks"], 0)


#: Runs the tasks of a recording by kind; commands only tell that they ran, and those of one kind have changed.
CHANGED = """
import json, sys
from pathlib import Path
from jobmon.client.api import Tool
from jobmon.client.wfformat import read_recording

recording, changed = read_recording(Path(sys.argv[1])), sys.argv[2]
tool = Tool("recorded")
workflow = tool.create_workflow("genomes", default_cluster_name="multiprocess")
tasks = {}
for task in recording.tasks:
    more = " # corrected" if task.category == changed else ""
    template = tool.get_task_template(task.category, "echo {task} >> ran" + more, node_args=["task"])
    upstreams = [tasks[parent] for parent in task.parents]
    tasks[task.task_id] = workflow.add_task(template.create_task(task=task.task_id, upstream_tasks=upstreams))
if changed:
    plan = workflow.plan()
    found = [(one.node_args["task"], one.action, [reason for reason, _ in one.reasons]) for one in plan.tasks]
    Path("plan.json").write_text(json.dumps(found))
print(workflow.run(resume=bool(changed), on_change="rerun" if changed else None))
"""


@pytest.mark.timeout(400)
def test_a_changed_kind_of_task_of_a_real_recording_reruns_as_planned(home):
    """In 1000genome, the plan names each task that reruns and why, and the run does exactly that."""
    path = RECORDINGS / "1000genome-chameleon-8ch-250k-001.json"
    if not path.is_file():
        pytest.skip("the recordings are not beside this checkout")
    script, ran = home.script(CHANGED), home.folder / "ran"
    recorded = read_recording(path)
    assert home.python(script, path, "").stdout.splitlines()[-1:] == ["D"]
    assert sorted(ran.read_text().split()) == sorted(task.task_id for task in recorded.tasks)
    ran.unlink()
    assert home.python(script, path, "individuals_merge").stdout.splitlines()[-1:] == ["D"]
    planned = {task: (action, reasons) for task, action, reasons in json.loads((home.folder / "plan.json").read_text())}
    changed = {task.task_id for task in recorded.tasks if task.category == "individuals_merge"}
    downstream: set[str] = set()
    for task in recorded.tasks:  # upstream tasks come first
        if not (changed | downstream).isdisjoint(task.parents):
            downstream.add(task.task_id)
    assert changed
    assert downstream - changed
    assert planned == {
        task.task_id: ("run", ["command changed"])
        if task.task_id in changed
        else ("run", ["upstream reruns"])
        if task.task_id in downstream
        else ("keep", ["up to date"])
        for task in recorded.tasks
    }
    assert sorted(ran.read_text().split()) == sorted(changed | downstream)
