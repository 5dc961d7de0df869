"""The plug-in against a real Slurm: every state, arrays, tokens, rejections, an unreachable controller."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from tests.services.conftest import until

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable
from jobmon.plugins.batch import Refused
from jobmon.plugins.slurm import SlurmDistributor, SlurmQueue, discovery, get_default_queues, get_queue
from jobmon.testing.cluster_contract import ClusterContract

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("slurm")]
TI = TaskInstanceStatus
SHORT = {"queue": "short", "cores": 1, "memory": 0.05, "runtime": 120.0}
EAT = f"{sys.executable} -I -S -c 'x = bytearray(400 * 2**20); print(len(x))'"


#: Submits, and says that it does not know whether it did, while there is a file "deaf" beside it.
DEAF_SBATCH = """#!/bin/sh
{real} "$@" || exit
[ ! -e {folder}/deaf ] || {{ echo "sbatch: error: Batch job submission failed: Socket timed out" >&2; exit 1; }}
"""


@contextlib.contextmanager
def submit_limit(slurm, room: int):
    """Let this user have only so many jobs; the test must be alone.

    Earlier tests may have cancelled jobs that squeue shows for a moment longer: counted now, they would leave a place
    each when they are gone. So all jobs must have ended first, by the controller's own count.
    """
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    told = ("scontrol", "--oneliner", "show", "assoc_mgr", f"users={user}", "flags=assoc")

    def rows() -> list[tuple[str, str]]:
        """Return limit and number of submitted jobs of each of the user's associations."""
        mine = [row for row in slurm.run(*told).splitlines() if f" UserName={user}(" in row]
        return [re.search(r" GrpSubmitJobs=\w*\((\d+)\).* MaxSubmitJobs=(\d*)", row).group(2, 1) for row in mine]

    until(lambda: {used for _, used in rows()} == {"0"}, "the jobs of earlier tests to end")
    slurm.run("sacctmgr", "-i", "-Q", "modify", "user", user, "set", f"MaxSubmitJobs={room}")
    until(lambda: {limit for limit, _ in rows()} == {str(room)}, "the controller to know the limit")
    try:
        yield
    finally:
        slurm.run("sacctmgr", "-i", "-Q", "modify", "user", user, "set", "MaxSubmitJobs=-1")
        until(lambda: {limit for limit, _ in rows()} == {""}, "the controller to know that there is no limit")


class TestContract(ClusterContract):
    plugin = "slurm"
    cluster_name = "slurm"
    good_request: ClassVar = {"cores": 1, "memory": 0.05, "runtime": 120.0}
    rejected_request: ClassVar = {"project": "nobody"}

    @pytest.fixture(autouse=True)
    def cluster(self, slurm, alone, tmp_path):
        self.slurm, self.alone, self.folder = slurm, alone, tmp_path

    def distributor_arguments(self, folder):
        sbatch = folder / "bin" / "sbatch"
        sbatch.parent.mkdir(exist_ok=True)
        sbatch.write_text(DEAF_SBATCH.format(real=shutil.which("sbatch"), folder=folder))
        sbatch.chmod(0o755)
        path = f"{sbatch.parent}:{os.environ['PATH']}"
        return {**super().distributor_arguments(folder), "environment": {**os.environ, "PATH": path}}

    @contextlib.contextmanager
    def full(self, adapter, room):
        with self.alone("slurm"), submit_limit(self.slurm, room):
            yield

    @contextlib.contextmanager
    def without_answer(self, adapter):
        (self.folder / "deaf").touch()
        yield
        (self.folder / "deaf").unlink()


def token(batch: int = 1) -> str:
    return f"jm-{secrets.token_hex(4)}-1-{batch}"


def request(**values) -> dict:
    return {**SHORT, "submission_token": token(), **values}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    made = SlurmDistributor("slurm", workflow_id=1, data_folder=tmp_path_factory.mktemp("slurm"))
    yield made
    made.stop()


def exits(adapter, ids, seconds=60.0):
    """Poll, with views as a distributor does, until all of these have exited and their outcomes are known."""
    since = time.time()

    def all_told():
        adapter.show(adapter.look(since))
        over = [one for one in ids if one not in adapter.get_submitted_or_running(list(ids))]
        found = adapter.get_remote_exits(over)
        return found if len(found) == len(ids) else None

    return until(all_told, f"the ends of {len(ids)} jobs", seconds)


# -- how jobs end: all submitted at once, then asserted one by one --------------------------------------------------

COMMANDS = {
    "well": ("true", {}),
    "exit 7": ("/bin/sh -c 'exit 7'", {}),
    "complaint": ("/bin/sh -c 'echo \"$JOBMON_DISTRIBUTOR_ID cannot reach 10.0.0.9:99\" >&2; exit 1'", {}),
    "signal": ("/bin/sh -c 'kill -SEGV $$'", {}),
    "memory": (EAT, {}),
    "time": ("sleep 300", {"runtime": 60.0}),
    "cancelled": ("sleep 300", {}),
    "node": ("sleep 300", {"sbatch": {"nodelist": "n4"}}),
    "no program": ("/nowhere/python", {}),
}


@pytest.fixture(scope="module")
def endings(adapter, slurm, alone):
    with alone("slurm"):  # a node fails
        return ends_of_all(adapter, slurm)


def ends_of_all(adapter, slurm):
    ids = {
        name: adapter.submit_to_batch_distributor(command, name, request(**values))
        for name, (command, values) in COMMANDS.items()
    }

    def all_run():
        rows = slurm.run("squeue", "--noheader", "--format=%i %T", "--jobs", ",".join(waited)).splitlines()
        return len(rows) == len(waited) and all(row.endswith("RUNNING") for row in rows)

    waited = [ids["time"], ids["cancelled"], ids["node"]]
    until(all_run, "three jobs to run")
    slurm.run("scontrol", "update", f"job={ids['time']}", "EndTime=now+1seconds")
    slurm.run("scancel", ids["cancelled"])
    slurm.node("fail", 4)
    slurm.run("scontrol", "update", "nodename=n4", "state=down", "reason=test")
    try:
        return {name: exits(adapter, [ids[name]], 90.0)[ids[name]] for name in COMMANDS}
    finally:
        slurm.node("up", 4)
        until(slurm.is_up, "node n4 to come back")


@pytest.mark.parametrize(
    ("name", "status", "cause", "exit_code", "signal"),
    [
        ("well", TI.DONE, None, None, None),
        ("exit 7", TI.ERROR, Cause.EXIT_CODE, 7, None),
        ("complaint", TI.ERROR, Cause.EXIT_CODE, 1, None),
        ("signal", TI.ERROR, Cause.SIGNAL, None, 11),
        ("memory", TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, None, None),
        ("time", TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, None, None),
        ("cancelled", TI.ERROR_FATAL, Cause.KILLED, None, None),
        ("node", TI.ERROR, Cause.NODE_FAILURE, None, None),
        ("no program", TI.ERROR, Cause.EXIT_CODE, 127, None),
    ],
)
def test_the_end_of_a_job_is_told_with_its_cause(endings, name, status, cause, exit_code, signal):
    found = endings[name]
    assert (found.status, found.cause, found.exit_code, found.signal) == (status, cause, exit_code, signal)


def test_what_the_job_itself_wrote_stands_with_a_failure(endings):
    assert "cannot reach 10.0.0.9:99" in endings["complaint"].message
    assert "/nowhere/python" in endings["no program"].message


def test_who_cancelled_is_told(endings):
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert endings["cancelled"].message == f"Slurm: cancelled by you as {name}; resume the workflow to run it"


def test_usage_is_told_also_of_jobs_that_were_killed(endings):
    assert endings["memory"].max_rss_bytes > 0
    assert endings["memory"].host in {"n1", "n2", "n3", "n4"}
    assert endings["node"].host == "n4"
    assert endings["time"].wallclock_seconds > 0
    assert endings["time"].ended_at >= endings["time"].started_at > time.time() - 600


# -- arrays ---------------------------------------------------------------------------------------------------------


def test_the_steps_of_an_array_end_each_in_its_own_way(adapter):
    ids = adapter.submit_array_to_batch_distributor("/bin/sh -c 'exit $JOBMON_STEP'", "steps", request(), 4)
    found = exits(adapter, ids.values())
    assert [found[ids[step]].exit_code for step in range(4)] == [None, 1, 2, 3]


def test_an_array_larger_than_the_cluster_takes_goes_in_parts_and_is_found_again_as_one(tmp_path):
    adapter = SlurmDistributor("slurm", data_folder=tmp_path, connection={"array_size": 4})
    wanted = request()
    ids = adapter.submit_array_to_batch_distributor("/bin/sh -c 'exit $JOBMON_STEP'", "parts", wanted, 9)
    assert adapter.calls["sbatch"] == 3
    assert len({identity.partition("_")[0] for identity in ids.values()}) == 3
    found = exits(adapter, ids.values())
    assert [found[ids[step]].exit_code for step in range(1, 9)] == list(range(1, 9))
    assert SlurmDistributor("slurm", data_folder=tmp_path).find_submitted({wanted["submission_token"]}) == {
        wanted["submission_token"]: ids
    }


def test_what_was_submitted_under_a_token_is_found_while_it_waits_and_nothing_else_is(adapter):
    array, single = request(sbatch={"hold": True}), request(sbatch={"hold": True})
    ids = adapter.submit_array_to_batch_distributor("true", "waits", array, 3)
    one = adapter.submit_to_batch_distributor("true", "waits too", single)
    tokens = {array["submission_token"], single["submission_token"], token(7)}
    assert adapter.find_submitted(tokens) == {array["submission_token"]: ids, single["submission_token"]: {0: one}}
    adapter.terminate_task_instances([*ids.values(), one])


def test_pending_steps_that_are_cancelled_in_bulk_are_told_though_slurm_has_no_row_for_each(adapter):
    ids = adapter.submit_array_to_batch_distributor("sleep 300", "bulk", request(array_limit=2), 300)
    adapter.show(adapter.look(time.time()))
    assert adapter.get_submitted_or_running(list(ids.values())) == set(ids.values())
    before = adapter.calls["scancel"]
    adapter.terminate_task_instances(list(ids.values()))
    assert adapter.calls["scancel"] == before + 1
    found = exits(adapter, ids.values())
    assert {one.cause for one in found.values()} == {Cause.KILLED}


def test_two_calls_tell_of_all_jobs(adapter):
    ids = adapter.submit_array_to_batch_distributor("true", "many", request(), 20)
    others = adapter.submit_array_to_batch_distributor("true", "more", request(), 20)
    before = adapter.calls.copy()
    adapter.show(adapter.look(time.time()))
    adapter.get_submitted_or_running([*ids.values(), *others.values()])
    assert adapter.calls - before == {"squeue": 1, "sacct": 1}
    exits(adapter, [*ids.values(), *others.values()])


def test_a_job_submitted_after_the_look_is_there(adapter):
    adapter.show(adapter.look(time.time()))
    one = adapter.submit_to_batch_distributor("sleep 60", "late", request())
    assert adapter.get_submitted_or_running([one]) == {one}
    adapter.terminate_task_instances([one])


# -- why jobs wait --------------------------------------------------------------------------------------------------


def test_why_a_job_waits_is_told_and_one_that_will_never_start_is_named(adapter):
    ids = {
        "held": adapter.submit_to_batch_distributor("true", "held", request(sbatch={"hold": True})),
        "long": adapter.submit_to_batch_distributor("true", "long", request(runtime=3600.0)),
        "begin": adapter.submit_to_batch_distributor("true", "begin", request(sbatch={"begin": "now+1hour"})),
    }

    def reasons_stand():
        adapter.show(adapter.look(time.time()))
        found = adapter.get_pending_reasons(ids.values())
        return found if "PartitionTimeLimit" in found.get(ids["long"], "") else None

    reasons = until(reasons_stand, "the scheduler to look at the jobs")
    assert "release" in reasons[ids["held"]]
    assert "estimated start 20" in reasons[ids["begin"]]
    assert "runtime" in adapter.get_queueing_errors(list(ids.values())).pop(ids["long"])
    assert set(adapter.get_queueing_errors(list(ids.values()))) == {ids["long"]}
    adapter.terminate_task_instances(list(ids.values()))


def test_memory_by_the_cpu_and_all_memory_of_a_node_are_what_slurm_is_asked_for(adapter, slurm):
    hold = {"sbatch": {"hold": True}, "runtime": 60.0}
    queue = SlurmQueue(1, "short", dict(get_default_queues())["short"])
    asked = [{"memory_per_cpu": "20M", "cores": 3}, {"memory": "node"}, {"memory": "20M", "memory_per_cpu": True}]
    requests = [{**request(), **queue.coerce_resources(**one, **hold)} for one in asked]
    ids = [adapter.submit_to_batch_distributor("true", "memory", {**one, "queue": "short"}) for one in requests]
    rows = slurm.run("squeue", "--noheader", "--Format=JobArrayID:20,MinMemory:20,NumCPUs:20", "--jobs", ",".join(ids))
    found = dict(row.split(None, 1) for row in rows.splitlines())
    assert [found[one].split() for one in ids] == [["20M", "3"], ["0", "1"], ["20M", "1"]]
    adapter.terminate_task_instances(ids)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"queue": "nowhere"}, "invalid partition"),
        ({"project": "nobody"}, "Invalid account"),
        ({"constraint": "golden"}, "Invalid feature"),
        ({"qos": "best"}, "Invalid qos"),
        ({"memory": 100.0}, "Memory specification can not be satisfied"),
        ({"gpus": 1}, "generic resource"),
        ({"reservation": "mine"}, "reservation"),
        ({"sbatch": {"frobnicate": 1}}, "unrecognized option '--frobnicate=1'"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_own_words(adapter, values, words):
    with pytest.raises(Refused) as caught:
        adapter.submit_to_batch_distributor("true", "refused", request(**values))
    assert words in str(caught.value)


@pytest.mark.alone
def test_where_a_user_may_have_no_more_jobs_what_fits_goes_and_the_rest_waits(slurm, tmp_path):
    adapter = SlurmDistributor("slurm", data_folder=tmp_path)
    with submit_limit(slurm, 10):
        hold = {"sbatch": {"hold": True}}
        ids = adapter.submit_array_to_batch_distributor("true", "part", request(**hold), 16)
        assert 8 <= len(ids) <= 10
        assert sorted(ids) == list(range(len(ids)))
        assert isinstance(ids.error, ClusterFull), "why the rest was not submitted"
        with pytest.raises(ClusterFull, match="AssocMaxSubmitJobLimit"):
            adapter.submit_array_to_batch_distributor("true", "more", request(**hold), 16)
        adapter.terminate_task_instances(list(ids.values()))


def test_without_slurms_commands_it_is_said_where_to_go(tmp_path):
    adapter = SlurmDistributor("slurm", data_folder=tmp_path, environment={"PATH": str(tmp_path)})
    with pytest.raises(ClusterUnavailable, match="squeue was not found on the PATH"):
        adapter.look(0.0)
    with pytest.raises(Refused, match=r"sbatch was not found on the PATH.*login node"):
        adapter.submit_to_batch_distributor("true", "one", request())


# -- discovery ------------------------------------------------------------------------------------------------------


def test_partitions_are_found_with_their_limits_and_groups_of_them_can_be_named():
    queues = dict(get_default_queues())
    assert next(iter(queues)) == "short"
    assert queues["short"]["max_runtime"] == 300.0
    assert queues["long"]["default_runtime"] == 3600.0
    assert queues["short"]["max_cores"] == 16
    assert queues["short"]["max_memory"] * 1024 == 8000
    assert get_queue("short,long")["max_runtime"] == 86_400.0
    assert get_queue("short,nowhere") is None
    assert discovery.is_here(os.environ)


# -- a controller that is away: last, because everybody notices -----------------------------------------------------


@pytest.mark.alone
def test_a_controller_that_is_away_fails_nothing_and_what_it_held_is_there_afterwards(adapter, slurm, tmp_path):
    impatient = tmp_path / "slurm.conf"  # the tools themselves try for this long
    impatient.write_text(Path("/etc/slurm/slurm.conf").read_text().replace("MessageTimeout=30", "MessageTimeout=3"))
    hasty = SlurmDistributor("slurm", data_folder=tmp_path, connection={"slurm_conf": str(impatient)})
    ids = adapter.submit_array_to_batch_distributor("sleep 3", "through", request(), 4)
    slurm.stop_controller()
    try:
        with pytest.raises(ClusterUnavailable, match="Unable to contact slurm controller"):
            hasty.look(time.time())
        with pytest.raises(ClusterUnavailable):
            hasty.submit_to_batch_distributor("true", "one", request())
    finally:
        slurm.up()
    found = exits(adapter, ids.values())
    assert {one.status for one in found.values()} == {TI.DONE}
