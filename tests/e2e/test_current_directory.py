"""A script started from a folder that holds modules with names of the standard library."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from jobmon.client.api import Tool

tool = Tool(name="shadow")
step = tool.get_task_template("step", command_template="echo {n}", node_args=["n"])
workflow = tool.create_workflow(name="shadow")
workflow.add_tasks(step.create_tasks(n=[1, 2]))
print(workflow.run())
"""
SHADOWED = ("http", "select", "logging", "socket", "random", "secrets", "types", "json", "resource", "queue", "msgspec")


def test_they_are_neither_executed_nor_in_the_way(home):
    script = home.script(SCRIPT)
    folder = home.folder / "shadows"
    folder.mkdir()
    for name in SHADOWED:
        (folder / f"{name}.py").write_text(
            f"import sys; open({str(home.folder / 'executed')!r}, 'a').write('{name} ')\n"
        )
    ended = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=home.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "D\n"), ended.stderr
    assert not (home.folder / "executed").exists()
    assert list(folder.glob("*.pyc")) == []
