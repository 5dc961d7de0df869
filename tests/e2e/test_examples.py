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
    (error,) = home.json("workflow", "errors", "--list", "-w", str(workflow["workflow_id"]))
    assert error["exit_code"] == 75


@pytest.mark.timeout(90)
def test_resources(home):
    """What was too little is raised, only what was missing; the next run asks for the right amount at once."""
    finished = home.python(PROJECT / "examples" / "resources.py")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    details = {name: home.json("task", "status", "-t", str(number + 1))[0] for number, name in enumerate(NAMES)}
    requests = {
        name: [{key: one["requested_resources"][key] for key in ("memory", "runtime")} for one in detail["attempts"]]
        for name, detail in details.items()
    }
    for name, missing, kept, cause in (
        ("hungry", "memory", "runtime", "out of memory"),
        ("slow", "runtime", "memory", "out of time"),
    ):
        attempts, asked = details[name]["attempts"], requests[name]
        assert 2 <= len(attempts) <= 4
        assert {one["cause"] for one in attempts[:-1]} == {cause}
        assert attempts[-1]["status"] == "D"
        assert [one["request_kind"] for one in attempts] == ["validated", *["adjusted"] * (len(attempts) - 1)]
        assert attempts[-1]["original_resources"] == attempts[0]["requested_resources"]
        assert len({one[missing] for one in asked}) == len(asked)
        assert len({one[kept] for one in asked}) == 1
    assert "and had asked for 0.059 GiB" in details["hungry"]["attempts"][0]["error"]
    assert [len(details[f"again {name}"]["attempts"]) for name in ("hungry", "slow")] == [1, 1]
    assert "HELD FOR NOTHING" in finished.stdout
    assert finished.stdout.count("Ask for cores 1, memory") == 2
    used = home.jobmon("workflow", "resources", "usage", "-t", "1", "-a", '{"mib": 100}').stdout
    assert used.startswith("2 finished tasks of template version 1")
    assert "95 % used no more than" in used
    nobody = home.jobmon("workflow", "resources", "yaml", "-w", "99")
    assert (nobody.returncode, nobody.stdout) == (2, "")


NAMES = ("hungry", "slow", "again hungry", "again slow")
