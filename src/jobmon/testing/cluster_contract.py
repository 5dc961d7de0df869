"""What every cluster plug-in must do. Its author subclasses `ClusterContract` in a test file and runs pytest:

    class TestMyCluster(ClusterContract):
        plugin = "my_cluster"

A plug-in whose distributor is direct gets the tests of commands, too. Those need a machine with `/bin/sh`; a plug-in
that runs nothing says so by `runs_commands = False`.
"""

from __future__ import annotations

import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.core.cluster import default_queues, load_plugin
from jobmon.core.cluster_protocol import ClusterDistributor, DirectClusterDistributor, Exit, Launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENDING_TIMEOUT_SECONDS = 20.0


class ClusterContract:
    """Base of a plug-in's tests. Set `plugin`; override what differs."""

    plugin: ClassVar[str] = ""
    cluster_name: ClassVar[str] = "under-test"
    #: False: commands are accepted, but nothing runs (every one succeeds).
    runs_commands: ClassVar[bool] = True
    #: A request that the default queue takes, and one that it must refuse.
    good_request: ClassVar[Mapping[str, Any]] = {"cores": 1}
    bad_request: ClassVar[Mapping[str, Any]] = {"no_such_resource": 1}

    def distributor_arguments(self, folder: Path) -> dict[str, Any]:
        """Return what the distributor is built with beside its name; as the distributor process does."""
        return {"workflow_id": 1, "data_folder": folder, "connection": {}}

    @contextmanager
    def distributor(self, folder: Path) -> Iterator[ClusterDistributor]:
        """Build a distributor, start and stop it."""
        kind = load_plugin(self.plugin).get_cluster_distributor_class()
        adapter: ClusterDistributor = kind(self.cluster_name, **self.distributor_arguments(folder))
        adapter.start()
        try:
            yield adapter
        finally:
            adapter.stop()

    @contextmanager
    def direct(self, folder: Path) -> Iterator[DirectClusterDistributor]:
        """Build a direct distributor; skip the test where the plug-in's is not."""
        import pytest

        with self.distributor(folder) as adapter:
            if not isinstance(adapter, DirectClusterDistributor):
                pytest.skip(f"{self.plugin} is not a direct cluster")
            yield adapter

    def launch(self, folder: Path, identity: int, command: str, **values: Any) -> Launch:
        """Make a launch whose output goes below `folder`."""
        path = str(folder / f"{identity}.log")
        given = {"working_directory": str(folder), "umask": 0o022, "stdout": path, "stderr": path, **values}
        return Launch(task_instance_id=identity, name=f"task{identity}", command=command, **given)

    def endings(self, adapter: DirectClusterDistributor, count: int) -> dict[int, Exit]:
        """Wait for so many endings, by the descriptor where there is one."""
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
        """Loading checks the interface."""
        load_plugin(self.plugin)

    def test_its_first_queue_takes_a_good_request_and_refuses_a_bad_one(self) -> None:
        """Validation says what is wrong, coercion gives a request that passes."""
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
        """A new distributor has submitted nothing."""
        with self.distributor(tmp_path) as adapter:
            assert adapter.cluster_name == self.cluster_name
            assert adapter.get_submitted_or_running([]) == set()
            assert adapter.get_queueing_errors([]) == {}
            adapter.terminate_task_instances([])

    def test_its_node_can_be_asked(self) -> None:
        """Outside of a job the node says None or a value, and does not fail."""
        node = load_plugin(self.plugin).get_cluster_worker_node_class()()
        assert node.distributor_id is None or isinstance(node.distributor_id, str)
        assert node.array_step_id is None or isinstance(node.array_step_id, int)
        assert isinstance(node.get_usage_stats(), dict)

    # -- direct ones -------------------------------------------------------------------------------------------

    def test_a_direct_one_tells_every_ending_once(self, tmp_path: Path) -> None:
        """Each launch gets an id and, later, exactly one ending."""
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
        """Exit codes, signals and what could not be started are told apart, with times and usage."""
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
        """Termination reaches running commands; their endings are told."""
        with self.commands(tmp_path) as adapter:
            ids = adapter.spawn([self.launch(tmp_path, 1, "sleep 60")])
            assert adapter.get_submitted_or_running([ids[1], "unknown"]) == {ids[1]}
            adapter.terminate_task_instances([ids[1]])
            assert self.endings(adapter, 1)[1].exit_code != 0

    def test_a_direct_one_enforces_the_runtime(self, tmp_path: Path) -> None:
        """A command that runs for too long is ended and says why."""
        with self.commands(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, "sleep 60", runtime_seconds=0.1)])
            assert self.endings(adapter, 1)[1].timed_out

    def test_a_direct_one_is_adopted(self, tmp_path: Path) -> None:
        """What runs outlives the distributor; the next one finds it and hears how it ended."""
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
        """As `direct`, for tests that need commands to run."""
        import pytest

        if not self.runs_commands:
            pytest.skip(f"{self.plugin} runs nothing")
        with self.direct(folder) as adapter:
            yield adapter
