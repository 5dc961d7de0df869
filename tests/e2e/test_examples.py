"""Run the examples of the documentation as readers would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
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
    assert list(scripts) == ["simulate.py", "report.py", "fix.py"]
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

    fixed = home.python(Path("fix.py"))
    assert "D 4 done, 0 failed" in fixed.stdout, fixed.stderr
    assert "2021\n2022\n2023\nAll as expected.\n" in fixed.stdout


def test_census(home):
    """The demo with a few packages: some 70 tasks, a retry, a report and its picture. `make demo` runs it with all."""
    pytest.importorskip("matplotlib")
    finished = home.python(PROJECT / "examples" / "stdlib_census.py", "asyncio", "email", "json", "urllib")
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


def test_resources(home):
    """Only the insufficient resource is increased; the next run requests the right amount at once."""
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
    assert "0.059 GiB" in details["hungry"]["attempts"][0]["error"]
    assert [len(details[f"again {name}"]["attempts"]) for name in ("hungry", "slow")] == [1, 1]
    assert "WASTED" in finished.stdout
    assert finished.stdout.count("Request cores 1, memory") == 2
    used = home.jobmon("workflow", "resources", "usage", "-t", "1", "-a", '{"mib": 100}').stdout
    assert used.startswith("2 finished tasks of template version 1")
    assert "95 % used at most" in used
    unknown = home.jobmon("workflow", "resources", "yaml", "-w", "99")
    assert (unknown.returncode, unknown.stdout) == (2, "")


NAMES = ("hungry", "slow", "again hungry", "again slow")


def test_a_fixed_command_and_twenty_more_files(home):
    """The plan says what the run does: only what changed or is new, with everything downstream."""
    data = home.folder / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.txt").write_text("one two\nthree\n")
    script = home.folder / "word_count.py"
    text = (PROJECT / "examples" / "word_count.py").read_text()
    script.write_text(text)
    first = home.python(script)
    assert first.stdout.splitlines()[-1:] == ["D"], first.stderr
    assert (home.folder / "total.txt").read_text() == "9\n"

    script.write_text(text.replace("wc -w", "wc -l"))
    refused = home.python(script)
    assert "WorkflowChanged" in refused.stderr
    assert "count  command changed (3 tasks)" in refused.stderr
    plan = home.jobmon("workflow", "plan", str(script)).stdout
    assert "4 of 4 tasks would run" in plan
    fixed = home.python(script, JOBMON__RUN__ON_CHANGE="rerun")
    assert fixed.stdout.splitlines()[-1:] == ["D"], fixed.stderr
    assert (home.folder / "total.txt").read_text() == "6\n"

    for number in range(10, 30):
        (data / f"{number}.txt").write_text("four\n")
    plan = home.jobmon("workflow", "plan", str(script)).stdout
    assert "21 of 24 tasks would run" in plan
    more = home.python(script, JOBMON__RUN__ON_CHANGE="rerun")
    assert more.stdout.splitlines()[-1:] == ["D"], more.stderr
    assert (home.folder / "total.txt").read_text() == "26\n"
    (workflow,) = home.json("workflow", "status")
    assert workflow["attempt_count"] == 4 + 4 + 21


@pytest.mark.timeout(180)
def test_declared_files(home):
    """Split, map and gather without a stated dependency; a lost report brings back what it needs; a book is added."""
    (code, *_) = FENCE.findall((PROJECT / "docs" / "howto" / "files.md").read_text())
    script = home.folder / "words.py"
    script.write_text(code)
    for book in ("emma", "persuasion", "sanditon"):
        (home.folder / book).write_text("one two\n" * 1_500)

    def run(**settings):
        finished = home.python(script, **settings)
        assert finished.stdout.splitlines()[-1:] == ["D"], finished.stderr
        return (home.folder / "total.txt").read_text(), home.json("workflow", "status")[0]["attempt_count"]

    assert run() == ("6000\n", 5)
    listed = home.json("workflow", "outputs", "1")
    assert [(one["template"], one["exists"], one["matches"]) for one in listed][:2] == [
        ("total", True, 1),
        ("count", True, 1),
    ]
    counting = str(listed[1]["task_id"])
    detail = home.json("task", "status", counting)[0]
    assert [len(detail[kind]) for kind in ("inputs", "outputs")] == [1, 1]
    assert "output  counts/" in home.jobmon("task", "status", counting).stdout
    (home.folder / "total.txt").unlink()
    (home.folder / "counts" / "emma.txt").unlink()
    assert [one["path"].rpartition("/")[2] for one in home.json("workflow", "outputs", "1", "--missing")] == [
        "total.txt",
        "emma.txt",
    ]
    plan = home.jobmon("workflow", "plan", "--check-files", "outputs", str(script)).stdout
    assert "2 of 5 tasks would run" in plan
    assert run(JOBMON__RUN__CHECK_FILES="outputs") == ("6000\n", 7)
    script.write_text(code.replace('"persuasion"]', '"persuasion", "sanditon"]'))
    assert run(JOBMON__RUN__ON_CHANGE="rerun") == ("9000\n", 10)


@pytest.mark.timeout(180)
def test_the_scripts_for_users_of_other_tools(home):
    """Each complete script does what the snippet of the other tool does, and running it again runs nothing."""
    text = (PROJECT / "docs" / "howto" / "coming-from-other-tools.md").read_text()
    scripts = dict(zip(("parallel", "make", "snakemake", "nextflow"), FENCE.findall(text), strict=True))
    made = {}
    for name, code in scripts.items():
        folder = home.folder / name
        folder.mkdir()
        (folder / "a.txt").write_text("3\n1\n")
        (folder / "b.txt").write_text("2\n")
        (folder / f"{name}.py").write_text(code)
        for _ in range(2):
            finished = home.python(folder / f"{name}.py", cwd=folder)
            assert finished.stdout.splitlines()[-1:] == ["D"], finished.stderr
        made[name] = {path.name: path for path in folder.iterdir()}
    assert {"a.txt.gz", "b.txt.gz"} <= made["parallel"].keys()
    assert made["make"]["all.sorted"].read_text() == "1\n2\n3\n"
    assert made["snakemake"]["total.txt"].read_text() == "2\n1\n"
    assert made["nextflow"]["smallest.csv"].read_text() == "1\n2\n"
    counts = [workflow["attempt_count"] for workflow in home.json("workflow", "status")]
    assert sorted(counts) == [2, 3, 3, 3]


def test_split_map_gather(home):
    """The number of parts is known only when the file has been split; the sum waits for all of them."""
    (home.folder / "input.txt").write_text("".join(f"{number}\n" for number in range(950)))
    finished = home.python(PROJECT / "examples" / "split_map_gather.py")
    assert finished.stdout.splitlines()[-1:] == ["D"], finished.stderr
    assert (home.folder / "total.txt").read_text() == "950\n"
    (workflow,) = home.json("workflow", "status")
    assert (workflow["task_count"], workflow["counts"]) == (13, {"D": 13})


def test_until_converged(home):
    finished = home.python(PROJECT / "examples" / "until_converged.py")
    assert finished.stdout.splitlines()[-1:] == ["D"], finished.stderr
    assert (home.folder / "converged.txt").read_text() == "converged\n"
    steps = [task["name"] for task in home.json("workflow", "tasks", "1") if task["name"].startswith("step")]
    assert steps == ["step_number-0", "step_number-1", "step_number-2"]


@pytest.mark.timeout(180)
def test_the_scripts_with_expansions(home):
    """Each script of the how-to does what it says; a second run is told that nothing is left to do."""
    text = (PROJECT / "docs" / "howto" / "expansions.md").read_text()
    scripts = dict(zip(("parts", "newton", "branches"), FENCE.findall(text), strict=True))
    (home.folder / "input.txt").write_text("one\n" * 250)
    for name, code in scripts.items():
        (home.folder / f"{name}.py").write_text(code)
        finished = home.python(Path(f"{name}.py"))
        assert finished.stdout.splitlines()[-1:] == ["D"], finished.stderr
        assert "is already complete" in home.python(Path(f"{name}.py")).stderr
    assert sum(map(int, (home.folder / "all.words").read_text().split())) == 250
    assert (home.folder / "converged.txt").exists()
    assert (home.folder / "report.txt").read_text() == "small\n"
    (skipped,) = home.json("workflow", "tasks", "3", "--status", "skipped")
    assert skipped["name"] == "fit_model-large"


def test_close_the_terminal(home, wait_until):
    """The how-to's script starts a run; then its terminal and its login shell are gone, and the run is done anyway."""
    (code,) = FENCE.findall((PROJECT / "docs" / "howto" / "close-the-terminal.md").read_text())
    (home.folder / "overnight.py").write_text(code)
    terminal, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f"{sys.executable} overnight.py; touch started; sleep 300"],
        cwd=home.folder,
        env=home.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(theirs)
    wait_until((home.folder / "started").exists)
    said = os.read(terminal, 65_536).decode()
    assert "Started: jobmon workflow attach 1" in said
    os.close(terminal)  # the kernel sends SIGHUP to everything that belongs to the terminal
    assert shell.wait(30) == -signal.SIGHUP

    attached = home.jobmon("workflow", "attach", "1")
    assert attached.returncode == 0, attached.stderr
    assert "3 done of 3" in attached.stdout
    assert "Workflow 1 is DONE." in attached.stderr
    assert sorted(path.name for path in home.folder.glob("*.txt")) == [f"simulated-{year}.txt" for year in YEARS]
    assert home.jobmon("workflow", "wait", "1").stdout == "Workflow 1 is DONE.\n"


YEARS = (2021, 2022, 2023)
