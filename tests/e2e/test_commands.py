"""The statements of the page on commands, quoting and pipes, checked with real shells."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

FLOW = """
from jobmon import Tool

tool = Tool(name="commands")
tool.update_default_compute_resources("", shell="bash -euo pipefail")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])
count = tool.get_task_template("count", command_template="wc -l < {file:q} > lines.txt", node_args=["file"])

def task(command, **resources):
    return step.create_task(command=command, max_attempts=1, compute_resources=resources)

open("a b (c).csv", "w").write("1\\n2\\n")
tasks = {
    "quoted": count.create_task(file="a b (c).csv"),
    "pipe": task("cat missing.csv | wc -l"),
    "login": task("greet ada", shell="bash -leuo pipefail"),
    "exported": task("exported"),
    "path": task("tool-of-the-environment", env={"PATH": "ENVIRONMENT/bin:/usr/bin:/bin"}),
    "shared 1": task("echo one", stdout="all.log"),
    "shared 2": task("echo two", stdout="all.log"),
    "nowhere": task("echo three", stdout="/dev/null"),
    "apart": task("echo out; echo err >&2", stdout="out/", stderr="errors.log"),
}
workflow = tool.create_workflow("commands", name="commands")
workflow.add_tasks(tasks.values())
workflow.run()
print({name: str(task.final_status) for name, task in tasks.items()})
"""


def test_commands(home):
    environment = home.folder / "environment"
    (environment / "bin").mkdir(parents=True)
    program = environment / "bin" / "tool-of-the-environment"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    (home.folder / ".bash_profile").write_text("greet() { echo Hello $1; }\n")
    home.environment |= {"HOME": str(home.folder), "BASH_FUNC_exported%%": "() { echo exported; }"}
    finished = home.python(FLOW.replace("ENVIRONMENT", str(environment)))
    assert finished.returncode == 0, finished.stderr
    found = eval(finished.stdout.splitlines()[-1])
    assert [name for name, status in found.items() if status != "D"] == ["pipe"]
    assert (home.folder / "lines.txt").read_text().strip() == "2"
    assert sorted((home.folder / "all.log").read_text().split()) == ["one", "two"]
    assert (home.folder / "errors.log").read_text() == "err\n"
    assert [path.read_text() for path in (home.folder / "out").iterdir()] == ["out\n"]
    assert "jobmon workflow errors" in finished.stderr
