"""MPI programs as tasks on a real Slurm: one job on two nodes, started by `srun` and by `mpirun`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.services.conftest import until

pytestmark = [pytest.mark.services]
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "mpi.md"
RUN_SECONDS_MAX = 200


@pytest.fixture
def program(slurm, home):
    """Compile the program of the how-to; return its name. It is in the folder that the nodes share."""
    if shutil.which("mpicc") is None:
        pytest.skip("OpenMPI is not installed, and slurm-up.sh could not install it")
    if "pmix" not in slurm.run("srun", "--mpi=list"):
        pytest.skip("this Slurm has no PMIx, with which srun starts OpenMPI")
    (source,) = re.findall(r"```c\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    (home.folder / "sum.c").write_text(source)
    subprocess.run(["mpicc", "-o", "sum", "sum.c"], cwd=home.folder, check=True, timeout=60)
    return "sum"


def script_of_howto() -> str:
    """Return the script of the how-to, for the partition of the test cluster."""
    (script,) = re.findall(r"```python\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    return script.replace('"queue": "long"', '"queue": "short"')


def ranks(text: str) -> dict[int, tuple[int, str, int]]:
    """Return rank -> number of ranks, node and sum, as the program printed them."""
    found = re.findall(r"^rank (\d+) of (\d+) on (\w+): sum (\d+)$", text, re.MULTILINE)
    return {int(rank): (int(size), node, int(total)) for rank, size, node, total in found}


@pytest.mark.parametrize("launcher", ["srun --mpi=pmix", "mpirun --allow-run-as-root"])
def test_a_task_is_one_job_whose_ranks_are_on_two_nodes(launcher, program, home, slurm):
    text = script_of_howto()
    assert "srun --mpi=pmix" in text
    done = home.python(text.replace("srun --mpi=pmix", launcher))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "D"
    (task,) = home.json("workflow", "tasks", "-w", "1")
    found = ranks(home.jobmon("task", "logs", str(task["task_id"])).stdout)
    assert sorted(found) == [0, 1, 2, 3]
    assert {(size, total) for size, _, total in found.values()} == {(4, 6)}
    assert len({node for _, node, _ in found.values()}) == 2
    (detail,) = home.json("task", "status", "-t", str(task["task_id"]))
    (attempt,) = detail["attempts"]
    job = ("-X", "-j", attempt["distributor_id"])
    words = ("sacct", "--noheader", "--parsable2", "--format=NNodes,State", *job)
    until(lambda: slurm.run(*words).split() == ["2|COMPLETED"], "the accounting of a job on two nodes")


def test_a_rank_that_fails_fails_the_task_and_nothing_of_the_job_is_left(program, home, slurm):
    failing = script_of_howto().replace("./sum", "sh -c 'test $SLURM_PROCID != 3 && exec sleep 600 || exit 3'")
    assert "SLURM_PROCID" in failing
    done = home.python(failing.replace("srun --mpi=pmix", "srun --kill-on-bad-exit=1"))
    assert done.stdout.splitlines()[-1] == "E", done.stderr
    (task,) = home.json("workflow", "tasks", "-w", "1")
    (detail,) = home.json("task", "status", "-t", str(task["task_id"]))
    attempt = detail["attempts"][-1]
    assert attempt["exit_code"] == 128 + signal.SIGTERM, "the highest of all ranks: the others were terminated"
    assert "task 3: Exited with exit code 3" in home.jobmon("task", "logs", str(task["task_id"])).stdout
    until(lambda: not slurm.run("squeue", "--noheader", f"--jobs={attempt['distributor_id']}"), "the job to end")
