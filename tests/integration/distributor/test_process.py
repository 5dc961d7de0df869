"""The distributor as a process, with the real embedded server and real commands."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobmon.core.access import find_server, stop_server
from jobmon.core.requester import Requester
from jobmon.core.wire import binding, definition
from jobmon.core.wire.run import RunRequest, RunResponse, RunStatusRequest, RunStatusResponse
from jobmon.core.wire.swarm import ChangesResponse, QueueBatch, QueueRequest, QueueResponse
from jobmon.distributor.process import EXIT_CANNOT_WORK

FOREIGN = Path(__file__).parent / "plugins"


@pytest.fixture(scope="module")
def requester():
    """A server of this module's own."""
    folder = tempfile.mkdtemp(prefix="jt-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBMON_DATA_DIR", f"{folder}/data")
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.setenv("PYTHONPATH", str(FOREIGN))
        found = Requester.from_defaults()
        yield found
        found.close()
        stop_server()
    shutil.rmtree(folder, ignore_errors=True)


class Run:
    """A workflow of some commands, bound and queued."""

    def __init__(self, requester, name, commands, cluster="backyard"):
        self.requester = requester
        tool = self.call("/tools", definition.ToolRequest(name="tool"), definition.ToolResponse)
        template = definition.TemplateSpec(name="t", command_template="{c}", node_args=["c"], task_args=[], op_args=[])
        version = tool.tool_version_ids[-1]
        found = self.call(
            f"/tool_versions/{version}/task_templates",
            definition.TemplatesRequest(templates=[template]),
            definition.TemplatesResponse,
        )
        spec = definition.ClusterRequest(
            name=cluster,
            plugin=cluster,
            queues=[definition.QueueSpec(queue_name="default")],
            connection={"url": "", "ends_jobs": False},
        )
        where = self.call("/clusters", spec, definition.Cluster)
        asked = binding.ResourcesSpec(
            cluster_name=cluster, queue_name="default", requested={"cores": 1}, kind="original"
        )
        resources = self.call("/task_resources", binding.ResourcesRequest(resources=[asked]), binding.IdsResponse).ids[
            0
        ]
        self.workflow_id, self.task_ids, array = self.bind(
            name, commands, version, found.task_template_version_ids[0], resources
        )
        self.batch = QueueBatch(
            array_id=array, task_ids=self.task_ids, task_resources_id=resources, cluster_id=where.cluster_id
        )
        me = RunRequest(
            user="me",
            host="here",
            pid=os.getpid(),
            pid_start_time=1.0,
            version="1",
            next_report_increment=93.0,
            key=name,
        )
        self.id = self.call(f"/workflows/{self.workflow_id}/runs", me, RunResponse).workflow_run_id
        for status in "LBIOR":
            self.move(status)

    def call(self, route, message, reply, method="post"):
        return self.requester.call(route, message, reply, method)

    def bind(self, name, commands, version, template, resources):
        count = len(commands)
        workflow = self.call(
            "/workflows",
            binding.WorkflowRequest(
                tool_version_id=version,
                workflow_args=name,
                workflow_args_hash=name.ljust(64, "0"),
                dag_hash=f"d{name}".ljust(64, "0"),
                task_hash=f"t{name}".ljust(64, "0"),
                task_count=count,
                edge_set_count=0,
                name=name,
                description="",
                max_concurrently_running=100_000,
                task_counts={"t": count},
                user="me",
                working_directory=tempfile.gettempdir(),
                umask=0o022,
            ),
            binding.WorkflowResponse,
        )
        spec = binding.ArraySpec(task_template_version_id=template, name="t", max_concurrently_running=100_000)
        route = f"/workflows/{workflow.workflow_id}"
        array = self.call(f"{route}/arrays", binding.ArraysRequest(arrays=[spec]), binding.IdsResponse).ids[0]
        tasks = binding.TasksRequest(
            array_id=array,
            task_template_version_id=template,
            names=[f"t{i}" for i in range(count)],
            commands=list(commands),
            node_hashes=[f"n{i}{name}".ljust(64, "0") for i in range(count)],
            task_hashes=[f"k{i}{name}".ljust(64, "0") for i in range(count)],
            node_args={"c": [str(i) for i in range(count)]},
            task_args={},
            max_attempts=[1] * count,
            task_resources_ids=[resources] * count,
            scales=[{}],
            scales_index=[0] * count,
            fallback_queues=[[]],
            fallback_index=[0] * count,
        )
        ids = self.call(f"{route}/tasks", tasks, binding.TasksResponse).task_ids
        self.call(f"{route}/bound", {}, binding.BoundResponse)
        return workflow.workflow_id, ids, array

    def move(self, status):
        self.call(f"/workflow_runs/{self.id}/status", RunStatusRequest(status=status), RunStatusResponse)

    def queue(self):
        self.call(f"/workflow_runs/{self.id}/queue", QueueRequest(batches=[self.batch]), QueueResponse)

    def counts(self):
        found = self.call(f"/workflows/{self.workflow_id}/changes", {}, ChangesResponse, "get").tasks_by_status
        return {status: len(ids) for status, ids in found.items() if ids}

    def until(self, wanted, timeout=30.0):
        deadline = time.monotonic() + timeout
        while (counts := self.counts()) != wanted:
            assert time.monotonic() < deadline, counts
            time.sleep(0.02)

    def distributor(self):
        words = [sys.executable, "-m", "jobmon.distributor", "--workflow-run-id", str(self.id)]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_it_says_that_it_lives_runs_everything_and_ends_with_the_run(requester):
    run = Run(requester, "all", ["true"] * 20 + ["exit 3"] * 2)
    run.queue()
    with run.distributor() as process:
        assert process.stdout.readline().startswith(b"ALIVE {")
        run.until({"D": 20, "F": 2})
        run.move("E")
        assert process.wait(20) == 0


def test_it_ends_with_its_client_and_leaves_nothing_undone(requester):
    run = Run(requester, "gone", ["sleep 2"] * 4)
    run.queue()
    with run.distributor() as process:
        process.stdout.readline()
        run.until({"R": 4})
        process.stdin.close()
        assert process.wait(20) == 0
    assert run.counts() == {"D": 4}


def test_after_its_death_the_next_one_adopts_what_runs(requester):
    run = Run(requester, "killed", ["sleep 3"] * 2)
    run.queue()
    with run.distributor() as process:
        process.stdout.readline()
        run.until({"R": 2})
        process.kill()
    with run.distributor() as process:
        run.until({"D": 2})
        run.move("D")
        assert process.wait(20) == 0


def test_a_server_that_dies_meanwhile_is_started_again_and_nothing_is_lost(requester):
    run = Run(requester, "restart", ["sleep 3"] * 6)
    run.queue()
    with run.distributor() as process:
        process.stdout.readline()
        run.until({"R": 6})
        os.kill(find_server().pid, signal.SIGKILL)
        run.until({"D": 6})
        run.move("D")
        assert process.wait(20) == 0


def test_of_two_distributors_of_a_run_the_older_leaves_and_everything_runs_once(requester, tmp_path):
    run = Run(requester, "two", [f"sleep 3; echo >> {tmp_path}/{i}" for i in range(4)])
    run.queue()
    with run.distributor() as older:
        run.until({"R": 4})
        with run.distributor() as newer:
            assert older.wait(20) == 0
            run.until({"D": 4})
            run.move("D")
            assert newer.wait(20) == 0
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {str(i): 1 for i in range(4)}


def test_one_that_cannot_work_says_why_in_its_last_line_and_with_its_exit_code(requester):
    run = Run(requester, "cannot", ["true"])
    words = [sys.executable, "-m", "jobmon.distributor", "--workflow-run-id", str(run.id)]
    environment = {**os.environ, "JOBMON__DISTRIBUTOR__POLL_INTERVAL": "often"}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.wait(60) == EXIT_CANNOT_WORK
        assert (
            "Setting distributor.poll_interval must be a number above 0 and at most 3,600, not 'often'"
            in process.stderr.read().splitlines()[-1]
        )
    run.move("E")
