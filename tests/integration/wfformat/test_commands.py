"""Run the commands built from a recording one after the other in a shell, without a server."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from jobmon.client.tool import Tool
from jobmon.client.wfformat import BuildOptions, build_workflow, parse_recording, read_recording

RECORDINGS = Path(__file__).resolve().parents[4] / "shared" / "data" / "wfinstances"
ODD_NAMES = ["task one", "it's $(two)", 'three"{3}', "4"]


def odd_document() -> bytes:
    """A chain of tasks whose names and files a shell would misread."""
    files = [f"/data/{name}/out put" for name in ODD_NAMES]
    tasks = [
        {
            "id": name,
            "name": name,
            "parents": ODD_NAMES[:index][-1:],
            "children": [],
            "inputFiles": files[:index][-1:],
            "outputFiles": [files[index]],
        }
        for index, name in enumerate(ODD_NAMES)
    ]
    runs = [{"id": name, "runtimeInSeconds": 0} for name in ODD_NAMES]
    sizes = [{"id": name, "sizeInBytes": 10} for name in files]
    workflow = {"specification": {"tasks": tasks, "files": sizes}, "execution": {"tasks": runs}}
    return json.dumps({"name": "odd", "schemaVersion": "1.5", "workflow": workflow}).encode()


def run_all(recording, folder: Path, scale: float) -> None:
    options = BuildOptions(directory=folder, cluster_name="multiprocess", scale=scale, workflow_args="x")
    workflow = build_workflow(recording, Tool(name="recordings"), options)
    commands = [task.command for task in workflow.tasks.values()]
    assert len(commands) == len(recording.tasks)
    for command in commands:
        finished = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
        assert finished.returncode == 0, f"{command}\n{finished.stderr}"


def test_names_that_a_shell_would_misread(tmp_path):
    folder = tmp_path / "it's a {folder}"
    run_all(parse_recording(odd_document()), folder, 1.0)
    assert sorted(path.stat().st_size for path in folder.rglob("out put")) == [10] * len(ODD_NAMES)


def test_the_command_names_the_task_and_is_short(tmp_path):
    recording = parse_recording(odd_document())
    options = BuildOptions(directory=tmp_path, cluster_name="multiprocess", workflow_args="x")
    for task in build_workflow(recording, Tool(name="recordings"), options).tasks.values():
        assert shlex.split(task.command)[-1] in ODD_NAMES
        assert len(task.command) < 1000


@pytest.mark.parametrize("name", ["sarek-dirt02-001.json", "helloworld-forkjoin-10-chameleon.json"])
def test_a_real_recording(tmp_path, name):
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not beside this checkout")
    recording = read_recording(RECORDINGS / name)
    run_all(recording, tmp_path, 0.0005)
    made = {file_id for task in recording.tasks for file_id in task.output_files}
    present = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert len(present) == len(made | set(recording.prepared_files))
