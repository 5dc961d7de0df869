"""What the documentation shows, run as its readers would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_quickstart_twice(home):
    first = home.python(PROJECT / "examples" / "quickstart.py")
    assert (first.returncode, first.stdout.splitlines()[-1:]) == (0, ["D"]), first.stderr
    second = home.python(PROJECT / "examples" / "quickstart.py")
    assert second.returncode == 1
    assert "WorkflowAlreadyComplete: Workflow 1 with" in second.stderr
    assert "is already complete" in second.stderr

    (workflow,) = home.json("workflow", "status")
    assert (workflow["name"], workflow["status"], workflow["counts"]) == ("quickstart", "D", {"D": 4})
    tasks = {
        task["name"]: task["task_id"] for task in home.json("workflow", "tasks", "-w", str(workflow["workflow_id"]))
    }
    greeting = next(task_id for name, task_id in tasks.items() if "Ada" in name)
    assert home.jobmon("task", "logs", str(greeting)).stdout == "Hello Ada\n"


def test_the_readme_shows_the_quickstart():
    (shown,) = FENCE.findall((PROJECT / "README.md").read_text())
    example = (PROJECT / "examples" / "quickstart.py").read_text()
    assert shown.strip() == example.partition('"""\n\n')[2].strip()


def test_tutorial(home):
    """Each block of the tutorial is a script, saved under the name that the text before it gives."""
    text = (PROJECT / "docs" / "tutorial" / "first-workflow.md").read_text()
    names = re.findall(r"Save this as `(\w+\.py)`", text)
    scripts = dict(zip(names, FENCE.findall(text), strict=True))
    assert list(scripts) == ["simulate.py", "report.py", "mend.py"]
    for name, code in scripts.items():
        (home.folder / name).write_text(code)

    simulated = home.python(Path("simulate.py"))
    assert simulated.stdout.splitlines()[-1:] == ["D"], simulated.stderr
    assert sorted(path.name for path in home.folder.glob("*.txt")) == [
        f"simulated-{year}.txt" for year in (2021, 2022, 2023)
    ]
    assert "already complete" in home.python(Path("simulate.py")).stderr

    reported = home.python(Path("report.py"))
    assert "E 3 done, 1 failed" in reported.stdout, reported.stderr
    assert "failed 2 times" in reported.stdout
    assert "notes.txt" in home.jobmon("workflow", "errors", "-w", "2").stdout

    mended = home.python(Path("mend.py"))
    assert "D 4 done, 0 failed" in mended.stdout, mended.stderr
    assert "2021\n2022\n2023\nAll as expected.\n" in mended.stdout


@pytest.mark.timeout(180)
def test_census(home):
    """The demo: some 250 tasks, a retry, a report and its picture."""
    pytest.importorskip("matplotlib")
    finished = home.python(PROJECT / "examples" / "stdlib_census.py")
    assert finished.returncode == 0, finished.stderr
    output = home.folder / "demo-output"
    assert str(output / "report.md") in finished.stdout
    assert (output / "census.png").read_bytes().startswith(b"\x89PNG")
    assert "| asyncio |" in (output / "report.md").read_text()
    (workflow,) = home.json("workflow", "status")
    assert workflow["counts"] == {"D": workflow["task_count"]}
    assert workflow["attempt_count"] == workflow["task_count"] + 1
    (error,) = home.json("workflow", "errors", "-w", str(workflow["workflow_id"]))
    assert error["exit_code"] == 75
