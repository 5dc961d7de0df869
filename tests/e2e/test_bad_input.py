"""Commands that misbehave: each records an error for its attempt, and blocks only the tasks that depend on it."""

from __future__ import annotations

import json

SCRIPT = """
import json
from jobmon.client.api import Tool

tool = Tool(name="bad")
shell = tool.get_task_template("shell", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow(name="bad", workflow_args="bad", default_max_attempts=1)
with open("commands.json") as file:
    commands = json.load(file)
tasks = {name: shell.create_task(name=name, command=command) for name, command in commands.items()}
tasks["after_fails"] = shell.create_task(name="after_fails", command="echo never", upstream_tasks=[tasks["fails"]])
tasks["after_good"] = shell.create_task(name="after_good", command="echo ever", upstream_tasks=[tasks["good"]])
workflow.add_tasks(tasks.values())
print(workflow.run(), workflow.workflow_id)
"""

COMMANDS = {
    "good": "echo fine",
    "not_utf8": r"printf '\377\376 caf\351\n'; exit 4",
    "missing": "/no/such/program --at all",
    "killed": "kill -9 $$",
    "loud": "head -c 20000000 /dev/zero | tr '\\0' x >&2; exit 5",
    "fails": "echo why it failed >&2; exit 6",
    "syntax": "if then",
    "brackets": "echo '[red]not markup[/red] {braces}'; exit 7",
}


def test_each_misbehaviour_is_recorded(home):
    (home.folder / "commands.json").write_text(json.dumps(COMMANDS))
    finished = home.python(SCRIPT)
    status, number = finished.stdout.split()[-2:]
    assert (finished.returncode, status) == (0, "E"), finished.stderr

    tasks = {task["name"]: task for task in home.json("workflow", "tasks", "-w", number)}
    assert {name for name, task in tasks.items() if task["status"] == "D"} == {"good", "after_good"}
    assert tasks["after_fails"]["status"] == "G"
    failed = [name for name, task in tasks.items() if task["status"] == "F"]
    assert sorted(failed) == sorted(set(COMMANDS) - {"good"})

    options = [part for name in failed for part in ("-t", str(tasks[name]["task_id"]))]
    attempts = {detail["task"]["name"]: detail["attempts"][-1] for detail in home.json("task", "status", *options)}
    assert {name: attempt["exit_code"] for name, attempt in attempts.items() if name not in ("killed", "syntax")} == {
        "not_utf8": 4,
        "missing": 127,
        "loud": 5,
        "fails": 6,
        "brackets": 7,
    }
    assert attempts["killed"]["signal"] == 9
    assert attempts["syntax"]["exit_code"] not in (0, None)

    def output(name: str) -> str:
        return home.jobmon("task", "logs", str(tasks[name]["task_id"])).stdout

    assert "\ufffd caf\ufffd" in output("not_utf8")
    assert 1000 < len(output("loud")) <= 11 * 1024
    assert output("brackets") == "[red]not markup[/red] {braces}\n"
    errors = home.jobmon("workflow", "errors", "-w", number).stdout
    assert "why it failed" in errors
    assert len(errors) < 200_000
    table = home.jobmon("task", "status", "-t", str(tasks["killed"]["task_id"])).stdout
    assert "signal 9" in table
