"""The tests that every cluster plug-in must pass. Subclass `ClusterContract` in a test file and run pytest:

   class TestMyCluster(ClusterContract):
       plugin = "my_cluster"

A plug-in with a direct distributor also gets the tests of commands. These need a machine with `/bin/sh`; a plug-in that
runs nothing sets `runs_commands = False`.

A plug-in whose cluster has its own queue gets the tests of jobs. Set `rejected_request` and override `full` and
`without_answer` to describe the cluster; tests without the necessary description are skipped. Jobs run `/bin/sh`.
"""

from __future__ import annotations

import select
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.core.cluster import default_queues, load_plugin
from jobmon.core.cluster_protocol import (
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ArraySubmission,
    ClusterDistributor,
    DirectClusterDistributor,
    Exit,
    Launch,
    RemoteExit,
    array_submission,
)
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import (
    ClusterFull,
    ClusterUnavailable,
    JobmonError,
    RemoteExitInfoNotAvailable,
    SubmissionDeferred,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

ENDING_TIMEOUT_SECONDS = 20.0


class ClusterContract:
    """Base class of a plug-in's tests. Set `plugin`, and override what differs."""

    plugin: ClassVar[str] = ""
    cluster_name: ClassVar[str] = "under-test"
    #: False: commands are accepted, but none is run, and all of them succeed.
    runs_commands: ClassVar[bool] = True
    #: A request that the default queue accepts, and one that it must refuse.
    good_request: ClassVar[Mapping[str, Any]] = {"cores": 1}
    bad_request: ClassVar[Mapping[str, Any]] = {"no_such_resource": 1}
    #: A request that the cluster itself rejects permanently; None: there is none.
    rejected_request: ClassVar[Mapping[str, Any] | None] = None
    #: Maximum time from the submission of a job until its cluster reports its outcome, in seconds.
    job_timeout_seconds: ClassVar[float] = 60.0

    def distributor_arguments(self, folder: Path) -> dict[str, Any]:
        """Return the arguments of the distributor in addition to its name, as the distributor process passes them."""
        return {"workflow_id": 1, "data_folder": folder, "connection": {}}

    @contextmanager
    def distributor(self, folder: Path) -> Iterator[ClusterDistributor]:
        """Create and start a distributor; stop it afterwards."""
        kind = load_plugin(self.plugin).get_cluster_distributor_class()
        adapter: ClusterDistributor = kind(self.cluster_name, **self.distributor_arguments(folder))
        adapter.start()
        try:
            yield adapter
        finally:
            adapter.stop()

    @contextmanager
    def direct(self, folder: Path) -> Iterator[DirectClusterDistributor]:
        """Create a direct distributor; skip the test if the plug-in's distributor is not direct."""
        import pytest

        with self.distributor(folder) as adapter:
            if not isinstance(adapter, DirectClusterDistributor):
                pytest.skip(f"{self.plugin} is not a direct cluster")
            yield adapter

    def launch(self, folder: Path, identity: int, command: str, **values: Any) -> Launch:
        """Return a launch whose output goes to a file in `folder`."""
        path = str(folder / f"{identity}.log")
        given = {"working_directory": str(folder), "umask": 0o022, "stdout": path, "stderr": path, **values}
        return Launch(task_instance_id=identity, name=f"task{identity}", command=command, **given)

    def endings(self, adapter: DirectClusterDistributor, count: int) -> dict[int, Exit]:
        """Wait for a number of exits, using the file descriptor if there is one."""
        deadline = time.monotonic() + ENDING_TIMEOUT_SECONDS
        found: dict[int, Exit] = {}
        while len(found) < count:
            assert time.monotonic() < deadline, f"only {sorted(found)} ended"
            if adapter.fileno() >= 0:
                select.select([adapter.fileno()], [], [], 0.1)
            else:
                time.sleep(0.01)
            found.update((one.task_instance_id, one) for one in adapter.collect_exits())
        return found

    # -- every plug-in -----------------------------------------------------------------------------------------

    def test_it_offers_the_three_classes(self) -> None:
        """Loading a plug-in checks its interface."""
        load_plugin(self.plugin)

    def test_its_first_queue_takes_a_good_request_and_refuses_a_bad_one(self) -> None:
        """Validation reports what is wrong, and coercion returns a request that passes."""
        kind = load_plugin(self.plugin).get_cluster_queue_class()
        queues = default_queues(self.plugin) or [("default", {})]
        queue = kind(1, *queues[0])
        assert queue.validate_resources(strict=True, **self.good_request) == (True, "")
        is_valid, message = queue.validate_resources(strict=True, **self.bad_request)
        assert not is_valid
        assert message
        assert queue.validate_resources(strict=True, **queue.coerce_resources(**self.good_request))[0]
        assert (queue.queue_id, queue.queue_name) == (1, queues[0][0])

    def test_it_knows_its_name_and_holds_nothing_at_first(self, tmp_path: Path) -> None:
        """A new distributor has no submitted jobs."""
        with self.distributor(tmp_path) as adapter:
            assert adapter.cluster_name == self.cluster_name
            assert adapter.get_submitted_or_running([]) == set()
            assert adapter.get_queueing_errors([]) == {}
            adapter.terminate_task_instances([])

    def test_its_node_can_be_asked(self) -> None:
        """Outside of a job, the worker node returns None or a value, and does not fail."""
        node = load_plugin(self.plugin).get_cluster_worker_node_class()()
        assert node.distributor_id is None or isinstance(node.distributor_id, str)
        assert node.array_step_id is None or isinstance(node.array_step_id, int)
        assert isinstance(node.get_usage_stats(), dict)

    # -- direct distributors -----------------------------------------------------------------------------------

    def test_a_direct_one_tells_every_ending_once(self, tmp_path: Path) -> None:
        """Each launch gets an ID and, later, exactly one exit."""
        with self.direct(tmp_path) as adapter:
            assert adapter.slots() > 0
            ids = adapter.spawn([self.launch(tmp_path, identity, "true") for identity in (1, 2, 3)])
            assert set(ids) == {1, 2, 3}
            found = self.endings(adapter, 3)
            assert {one.exit_code for one in found.values()} == {0}
            assert {one.distributor_id for one in found.values()} == set(ids.values())
            adapter.acknowledge([1, 2, 3])
            assert adapter.collect_exits() == []

    def test_a_direct_one_tells_how_commands_ended(self, tmp_path: Path) -> None:
        """Exit codes, signals and failed starts are distinguished, and times and usage are reported."""
        with self.commands(tmp_path) as adapter:
            adapter.spawn(
                [
                    self.launch(tmp_path, 1, "echo out; echo $WORD >&2; exit 3", env={"WORD": "err"}),
                    self.launch(tmp_path, 2, "kill -9 $$"),
                    self.launch(tmp_path, 3, "true", working_directory="/no/such/folder"),
                ]
            )
            found = self.endings(adapter, 3)
        assert (found[1].exit_code, found[1].signal) == (3, None)
        assert (found[2].exit_code, found[2].signal) == (None, 9)
        assert "/no/such/folder" in (found[3].not_started or "")
        assert (tmp_path / "1.log").read_text(encoding="utf-8") == "out\nerr\n"
        assert 0 < found[1].started_at <= found[1].ended_at
        assert found[1].cpu_seconds is not None

    def test_a_direct_one_ends_what_it_is_told_to(self, tmp_path: Path) -> None:
        """Termination reaches running commands, and their exits are reported."""
        with self.commands(tmp_path) as adapter:
            ids = adapter.spawn([self.launch(tmp_path, 1, "sleep 60")])
            assert adapter.adopt() == ids
            adapter.terminate_task_instances([ids[1]])
            assert self.endings(adapter, 1)[1].exit_code != 0

    def test_a_direct_one_enforces_the_runtime(self, tmp_path: Path) -> None:
        """A command that exceeds its runtime is terminated, and its exit says why."""
        with self.commands(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, "sleep 60", runtime_seconds=0.1)])
            assert self.endings(adapter, 1)[1].timed_out

    def test_a_direct_one_is_adopted(self, tmp_path: Path) -> None:
        """A running command outlives the distributor; the next distributor adopts it and reports its exit."""
        with self.commands(tmp_path) as first:
            ids = first.spawn([self.launch(tmp_path, 1, f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done")])
            deadline = time.monotonic() + ENDING_TIMEOUT_SECONDS
            while not (tmp_path / "1.log").exists() and time.monotonic() < deadline:
                first.collect_exits()
                time.sleep(0.01)
        with self.commands(tmp_path) as second:
            assert second.adopt() == ids
            (tmp_path / "go").touch()
            assert self.endings(second, 1)[1].exit_code == 0

    @contextmanager
    def commands(self, folder: Path) -> Iterator[DirectClusterDistributor]:
        """Create a direct distributor, for tests that need commands to run."""
        import pytest

        if not self.runs_commands:
            pytest.skip(f"{self.plugin} runs nothing")
        with self.direct(folder) as adapter:
            yield adapter

    # -- clusters with their own queue -------------------------------------------------------------------------

    def full(self, adapter: ClusterDistributor, room: int) -> AbstractContextManager[None]:
        """Limit how many further jobs the cluster accepts, inside the context. Override it where possible."""
        import pytest

        pytest.skip(f"{self.plugin} does not say how its cluster becomes full")

    def without_answer(self, adapter: ClusterDistributor) -> AbstractContextManager[None]:
        """Let submissions succeed but lose their responses, inside the context. Override it where possible."""
        import pytest

        pytest.skip(f"{self.plugin} does not say how answers are lost")

    @contextmanager
    def batch(self, folder: Path) -> Iterator[ClusterDistributor]:
        """Create a distributor of a cluster with a queue; skip the test if the plug-in's cluster has none."""
        import pytest

        with self.distributor(folder) as adapter:
            if adapter.agent_offer() is not None:
                pytest.skip(f"{self.plugin} accepts no jobs")
            yield adapter

    @contextmanager
    def arrays(self, folder: Path) -> Iterator[ClusterDistributor]:
        """Create a distributor as `batch` does, for tests of arrays."""
        import pytest

        with self.batch(folder) as adapter:
            own = type(adapter).submit_array_to_batch_distributor
            is_overridden = own is not ClusterDistributor.submit_array_to_batch_distributor
            if not (is_overridden if adapter.has_arrays is None else adapter.has_arrays):
                pytest.skip(f"{self.plugin} has no arrays")
            yield adapter

    def request(self, **values: Any) -> dict[str, Any]:
        """Return a valid request as a distributor passes it: coerced by the first queue, with a unique token."""
        kind = load_plugin(self.plugin).get_cluster_queue_class()
        name, parameters = (default_queues(self.plugin) or [("default", {})])[0]
        coerced = kind(1, name, parameters).coerce_resources(**{**self.good_request, **values})
        return {**coerced, "queue": name, SUBMISSION_TOKEN: f"jm-test-1-{uuid.uuid4().hex[:8]}"}

    @staticmethod
    def submit_array(
        adapter: ClusterDistributor, command: str, request: dict[str, Any], length: int
    ) -> ArraySubmission:
        """Submit an array and parse the response as a distributor does."""
        answer = adapter.submit_array_to_batch_distributor(command, "contract", request, length)
        return array_submission(answer, int(request.get(FIRST_STEP, 0)))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + self.job_timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def exits(self, adapter: ClusterDistributor, *distributor_ids: str) -> dict[str, RemoteExit]:
        """Wait until the cluster reports the exits of these jobs."""
        found: dict[str, RemoteExit] = {}

        def is_known() -> bool:
            if adapter.shares_watch:
                adapter.show(adapter.look(time.time() - 3600.0))
            if adapter.get_submitted_or_running(list(distributor_ids)):
                return False
            found.update(adapter.get_remote_exits(distributor_ids))
            return set(found) == set(distributor_ids)

        self.until(is_known, f"the cluster does not say how all of {distributor_ids} ended")
        return found

    def test_a_batch_one_runs_a_job_and_tells_how_it_ended(self, tmp_path: Path) -> None:
        """A job has an ID, is listed until it has ended, and its exit code is reported."""
        with self.batch(tmp_path) as adapter:
            good = adapter.submit_to_batch_distributor("/bin/sh -c 'exit 0'", "good", self.request())
            bad = adapter.submit_to_batch_distributor("/bin/sh -c 'exit 3'", "bad", self.request())
            assert good != bad
            assert all(isinstance(one, str) and one for one in (good, bad))
            found = self.exits(adapter, good, bad)
            assert found[good].status == TaskInstanceStatus.DONE
            assert found[bad].status == TaskInstanceStatus.ERROR
            assert found[bad].exit_code in (3, None)
            assert "3" in found[bad].message
            assert adapter.get_remote_exit_info(good)[0] == TaskInstanceStatus.DONE

    def test_a_batch_one_does_not_know_how_a_running_job_ended_and_ends_it_when_told_to(self, tmp_path: Path) -> None:
        """Termination reaches a job, and only that job."""
        import pytest

        with self.batch(tmp_path) as adapter:
            other, job = (
                adapter.submit_to_batch_distributor(f"/bin/sh -c 'sleep {seconds}'", "kill", self.request())
                for seconds in (50, 51)
            )
            if adapter.shares_watch:
                adapter.show(adapter.look(time.time() - 3600.0))
            assert adapter.get_submitted_or_running([job, other]) == {job, other}
            with pytest.raises(RemoteExitInfoNotAvailable):
                adapter.get_remote_exit_info(job)
            adapter.terminate_task_instances([job])
            assert self.exits(adapter, job)[job].status != TaskInstanceStatus.DONE
            assert adapter.get_submitted_or_running([other]) == {other}
            adapter.terminate_task_instances([other])

    def test_a_batch_one_gives_each_step_of_an_array_an_id(self, tmp_path: Path) -> None:
        """Steps are numbered from 0."""
        with self.arrays(tmp_path) as adapter:
            found = self.submit_array(adapter, "/bin/sh -c 'exit 0'", self.request(), 3)
            assert (sorted(found), found.error) == ([0, 1, 2], None)
            assert len(set(found.values())) == 3
            ends = self.exits(adapter, *found.values())
            assert {one.status for one in ends.values()} == {TaskInstanceStatus.DONE}

    def test_a_batch_one_that_continues_arrays_keeps_the_steps(self, tmp_path: Path) -> None:
        """The rest of an array begins at the requested step."""
        import pytest

        with self.arrays(tmp_path) as adapter:
            if not adapter.continues_arrays:
                pytest.skip(f"{self.plugin} does not continue arrays")
            found = self.submit_array(adapter, "/bin/sh -c 'exit 0'", {**self.request(), FIRST_STEP: 2}, 2)
            assert (sorted(found), found.error) == ([2, 3], None)
            self.exits(adapter, *found.values())

    def test_a_batch_one_finds_again_what_was_submitted_under_a_token(self, tmp_path: Path) -> None:
        """A job is step 0 of its token; unknown tokens are omitted."""
        with self.keeping_tokens(tmp_path) as adapter:
            request = self.request()
            job = adapter.submit_to_batch_distributor("/bin/sh -c 'sleep 20'", "find", request)
            token = request[SUBMISSION_TOKEN]
            assert adapter.find_submitted([token, "jm-test-1-nothing"]) == {token: {0: job}}
            adapter.terminate_task_instances([job])

    @contextmanager
    def keeping_tokens(self, folder: Path) -> Iterator[ClusterDistributor]:
        """Create a distributor as `batch` does, for tests of tokens."""
        import pytest

        with self.batch(folder) as adapter:
            if type(adapter).find_submitted is ClusterDistributor.find_submitted:
                pytest.skip(f"{self.plugin} keeps no tokens")
            yield adapter

    def test_a_batch_one_says_that_it_is_full_and_has_submitted_nothing_then(self, tmp_path: Path) -> None:
        """Covers a single job, and an array of which nothing fits."""
        import pytest

        with self.batch(tmp_path) as adapter, self.full(adapter, 0):
            request = self.request()
            with pytest.raises(ClusterFull):
                adapter.submit_to_batch_distributor("/bin/sh -c 'exit 0'", "full", request)
            assert not adapter.find_submitted([request[SUBMISSION_TOKEN]])

    def test_a_batch_one_submits_what_fits_of_an_array_and_says_why_not_the_rest(self, tmp_path: Path) -> None:
        """The accepted part is returned with its IDs, together with the error of the rest."""
        import pytest

        with self.arrays(tmp_path) as adapter:
            taken: ArraySubmission | None = None
            with self.full(adapter, 4):
                try:
                    taken = self.submit_array(adapter, "/bin/sh -c 'sleep 30'", self.request(), 8)
                except ClusterFull:
                    pytest.skip(f"{self.plugin} takes an array as a whole or not at all")
            try:
                assert 0 < len(taken) <= 4
                assert sorted(taken) == list(range(len(taken)))
                assert isinstance(taken.error, ClusterFull)
            finally:
                adapter.terminate_task_instances(list(taken.values()))

    def test_a_batch_one_says_what_its_cluster_rejects_for_good(self, tmp_path: Path) -> None:
        """The error is permanent, so that it is not retried, and contains the cluster's message."""
        import pytest

        if self.rejected_request is None:
            pytest.skip(f"{self.plugin} names no request that its cluster rejects")
        with self.batch(tmp_path) as adapter:
            with pytest.raises(JobmonError) as caught:
                adapter.submit_to_batch_distributor(
                    "/bin/sh -c 'exit 0'", "no", {**self.request(), **self.rejected_request}
                )
            assert not isinstance(caught.value, ClusterUnavailable)
            assert str(caught.value)

    def test_a_batch_one_whose_answer_is_lost_says_so_and_finds_the_job_again(self, tmp_path: Path) -> None:
        """An unconfirmed submission is neither full nor rejected; the job is found by its token."""
        import pytest

        with self.keeping_tokens(tmp_path) as adapter:
            request = self.request()
            with self.without_answer(adapter), pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind but these
                adapter.submit_to_batch_distributor("/bin/sh -c 'sleep 20'", "lost", request)
            is_unconfirmed = isinstance(caught.value, ClusterUnavailable) or not isinstance(caught.value, JobmonError)
            assert is_unconfirmed
            assert not isinstance(caught.value, ClusterFull | SubmissionDeferred)
            found = adapter.find_submitted([request[SUBMISSION_TOKEN]])
            assert list(found) == [request[SUBMISSION_TOKEN]]
            adapter.terminate_task_instances(list(found[request[SUBMISSION_TOKEN]].values()))
