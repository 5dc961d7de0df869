"""The plug-in against a real Grid Engine: the contract, every kind of exit, limits, whole workflows, pilots."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
from typing import ClassVar

import pytest
from tests.services.conftest import GRIDENGINE_BASE, until

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable
from jobmon.plugins.batch import Refused
from jobmon.plugins.gridengine import GridEngineDistributor, get_default_queues
from jobmon.testing.cluster_contract import ClusterContract

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("gridengine")]
TI = TaskInstanceStatus
SHORT = {"queue": "short.q", "cores": 1, "memory": 0.5, "runtime": 120.0}
#: Two processes that stay below the limit each and are above it together; one alone would get no memory instead.
EAT = f"{sys.executable} -I -S -c 'x = bytearray(300 * 2**20); import time; time.sleep(60)'"

#: Submits, and says that it does not know whether it did, while there is a file "deaf" beside it.
DEAF_QSUB = """#!/bin/sh
{real} "$@" || exit
[ ! -e {folder}/deaf ] || {{ echo "error: commlib error: got read error" >&2; exit 1; }}
"""


class TestContract(ClusterContract):
    plugin = "gridengine"
    cluster_name = "gridengine"
    good_request: ClassVar = {"cores": 1, "memory": 0.5, "runtime": 120.0}
    rejected_request: ClassVar = {"project": "nobody"}

    @pytest.fixture(autouse=True)
    def cluster(self, gridengine, alone, tmp_path):
        self.gridengine, self.alone, self.folder = gridengine, alone, tmp_path

    def distributor_arguments(self, folder):
        qsub = folder / "bin" / "qsub"
        qsub.parent.mkdir(exist_ok=True)
        qsub.write_text(DEAF_QSUB.format(real=shutil.which("qsub"), folder=folder))
        qsub.chmod(0o755)
        path = f"{qsub.parent}:{os.environ['PATH']}"
        return {**super().distributor_arguments(folder), "environment": {**os.environ, "PATH": path}}

    @contextlib.contextmanager
    def full(self, adapter, room):
        if room:
            pytest.skip("Grid Engine counts an array as one job: it takes all of it or nothing")
        with self.alone("gridengine"):
            until(lambda: not self.gridengine.jobs(), "the jobs of earlier tests to end")
            held = adapter.submit_to_batch_distributor("true", "held", {**self.request(), "qsub": {"h": True}})
            self.gridengine.configure(max_u_jobs=1)  # 0 means that there is no limit
            try:
                yield
            finally:
                self.gridengine.configure(max_u_jobs=0)
                adapter.terminate_task_instances([held])

    @contextlib.contextmanager
    def without_answer(self, adapter):
        (self.folder / "deaf").touch()
        yield
        (self.folder / "deaf").unlink()


def request(**values) -> dict:
    return {**SHORT, "submission_token": f"jm-{secrets.token_hex(4)}-1-1", **values}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    made = GridEngineDistributor("gridengine", workflow_id=1, data_folder=tmp_path_factory.mktemp("gridengine"))
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
    "memory": (f'/bin/sh -c "{EAT} & {EAT} & wait"', {"memory": 0.45}),
    "time": ("sleep 300", {"runtime": 2.0}),
    "deleted": ("sleep 300", {}),
    "deleted while it waited": ("true", {"qsub": {"h": True}}),
    "no program": ("/nowhere/python", {}),
}


@pytest.fixture(scope="module")
def endings(adapter, gridengine):
    ids = {
        name: adapter.submit_to_batch_distributor(command, name, request(**values))
        for name, (command, values) in COMMANDS.items()
    }

    def runs(name):
        return any(row.split()[:5:4] == [ids[name], "r"] for row in gridengine.jobs())

    until(lambda: runs("deleted"), "a job to run")
    adapter.show(adapter.look(time.time()))
    gridengine.run("qdel", ids["deleted"], ids["deleted while it waited"])
    found = exits(adapter, list(ids.values()), 90.0)
    return {name: found[one] for name, one in ids.items()}


@pytest.mark.parametrize(
    ("name", "status", "cause", "exit_code", "signals"),
    [
        ("well", TI.DONE, None, None, {None}),
        ("exit 7", TI.ERROR, Cause.EXIT_CODE, 7, {None}),
        ("complaint", TI.ERROR, Cause.EXIT_CODE, 1, {None}),
        ("signal", TI.ERROR, Cause.SIGNAL, None, {11}),
        ("memory", TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, None, {None}),
        ("time", TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, None, {None}),
        ("deleted", TI.ERROR, Cause.SIGNAL, None, {signal.SIGKILL, signal.SIGUSR2}),  # SIGUSR2 is the notice before it
        ("deleted while it waited", TI.ERROR, Cause.KILLED, None, {None}),
        ("no program", TI.ERROR, Cause.EXIT_CODE, 127, {None}),
    ],
)
def test_the_end_of_a_job_is_told_with_its_cause(endings, name, status, cause, exit_code, signals):
    found = endings[name]
    assert (found.status, found.cause, found.exit_code) == (status, cause, exit_code)
    assert found.signal in signals


def test_usage_and_what_the_job_itself_wrote_are_told(endings):
    assert "cannot reach 10.0.0.9:99" in endings["complaint"].message
    assert "/nowhere/python" in endings["no program"].message
    assert endings["memory"].max_rss_bytes >= 0.45 * 2**30
    assert endings["time"].wallclock_seconds >= 2
    assert time.time() >= endings["time"].ended_at >= endings["time"].started_at > time.time() - 600
    assert endings["deleted while it waited"].message == "Grid Engine: deleted before it started"


def test_the_steps_of_an_array_end_each_in_its_own_way_and_a_range_of_them_can_be_killed(adapter, gridengine):
    ids = adapter.submit_array_to_batch_distributor("/bin/sh -c 'exit $JOBMON_STEP'", "steps", request(), 4)
    held = adapter.submit_array_to_batch_distributor("true", "rest", request(qsub={"h": True}), 6)
    before = adapter.calls["qdel"]
    adapter.terminate_task_instances([held[step] for step in (1, 2, 3, 5)])
    assert adapter.calls["qdel"] == before + 1
    adapter.show(adapter.look(time.time()))
    assert adapter.get_submitted_or_running(list(held.values())) >= {held[0], held[4]}
    assert set(adapter.get_pending_reasons(held.values()).values()) == {"held: 'qrls' releases it"}
    adapter.terminate_task_instances(list(held.values()))
    found = exits(adapter, ids.values())
    assert [found[ids[step]].exit_code for step in range(4)] == [None, 1, 2, 3]


def test_an_array_larger_than_the_cluster_takes_goes_in_parts_and_is_found_again_as_one(tmp_path):
    adapter = GridEngineDistributor("gridengine", data_folder=tmp_path, connection={"array_size": 4})
    wanted = request()
    ids = adapter.submit_array_to_batch_distributor("/bin/sh -c 'exit $JOBMON_STEP'", "parts", wanted, 9)
    assert adapter.calls["qsub"] == 3
    found = exits(adapter, ids.values())
    assert [found[ids[step]].exit_code for step in range(1, 9)] == list(range(1, 9))
    token = wanted["submission_token"]
    assert GridEngineDistributor("gridengine", data_folder=tmp_path).find_submitted({token}) == {token: ids}


def test_a_job_in_error_state_is_told_with_grid_engines_words(adapter):
    one = adapter.submit_to_batch_distributor("true", "nowhere", request(runtime=60.0))
    broken = adapter.submit_to_batch_distributor("true", "broken", request(qsub=["-wd", "/no/such/folder"]))

    def stuck():
        adapter.show(adapter.look(time.time()))
        return adapter.get_queueing_errors([one, broken])

    found = until(stuck, "the job to be in error state")
    assert set(found) == {broken}
    assert "/no/such/folder" in found[broken]
    adapter.terminate_task_instances([broken])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"queue": "nowhere"}, 'unknown queue "nowhere"'),
        ({"project": "nobody"}, '"nobody" does not exist'),
        ({"resources": {"golden": 1}}, 'unknown resource "golden"'),
        ({"cores": 2, "parallel_environment": "nope"}, '"nope" does not exist'),
        ({"qsub": {"frobnicate": True}}, "-frobnicate"),
    ],
)
def test_what_grid_engine_rejects_is_told_in_its_own_words(adapter, values, words):
    with pytest.raises(Refused) as caught:
        adapter.submit_to_batch_distributor("true", "rejected", request(**values))
    assert words in str(caught.value)


def test_queues_are_found_with_their_limits():
    queues = dict(get_default_queues())
    assert list(queues) == ["short.q", "long.q"]
    assert queues["short.q"]["max_runtime"] == 300.0
    assert queues["long.q"]["max_cores"] == 16
    assert queues["short.q"]["max_memory"] == 8.0


# -- a master that is away: last, because everybody notices ---------------------------------------------------------


@pytest.mark.alone
def test_a_master_that_is_away_fails_nothing_and_what_it_held_is_there_afterwards(adapter, gridengine):
    ids = adapter.submit_array_to_batch_distributor("sleep 3", "through", request(), 3)
    gridengine.stop_master()
    try:
        with pytest.raises(ClusterUnavailable, match="Grid Engine does not respond"):
            adapter.look(time.time())
        with pytest.raises(ClusterUnavailable) as caught:
            adapter.submit_to_batch_distributor("true", "one", request())
        assert not isinstance(caught.value, ClusterFull)
    finally:
        gridengine.script("gridengine-up.sh", 200)
    found = exits(adapter, ids.values())
    assert {one.status for one in found.values()} == {TI.DONE}
    assert (GRIDENGINE_BASE / "qmaster.pid").exists()
