"""Runs for benchmarks: bound, running, with attempts handed out, but without the processes of a client."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from jobmon.client.api import Tool
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, SyncRequest, SyncResponse
from jobmon.core.wire.run import RunRequest

if TYPE_CHECKING:
    from jobmon.core.requester import Requester

#: The statuses of a run on its way to RUNNING: before and after its tasks are bound.
_BEFORE_BIND = (WorkflowRunStatus.LINKING,)
_AFTER_BIND = (
    WorkflowRunStatus.BOUND,
    WorkflowRunStatus.INSTANTIATED,
    WorkflowRunStatus.LAUNCHED,
    WorkflowRunStatus.RUNNING,
)


class OpenRun:
    """A workflow of `count` tasks with a run whose orchestrator and distributor this process simulates."""

    def __init__(self, requester: Requester, name: str, count: int) -> None:
        self.requester = requester
        workflow = Tool(name="bench").create_workflow(name=name, default_cluster_name="multiprocess")
        template = workflow.tool.get_task_template("noop", "true {number}", node_args=["number"])
        workflow.add_tasks(template.create_tasks(number=list(range(count))))
        workflow.bind()
        self.workflow_id = workflow.workflow_id
        self.run_id = int(self.post(f"/workflows/{self.workflow_id}/runs", _run_request())["workflow_run_id"])
        self.route = f"/workflow_runs/{self.run_id}"
        for status in (*_BEFORE_BIND, *_AFTER_BIND):
            self.post(f"{self.route}/status", {"status": status})
        request = DistributorRequest(host="bench", pid=os.getpid(), pid_start_time=0.0, key=secrets.token_hex(8))
        self.registration = requester.call(f"{self.route}/distributors", request, DistributorResponse)

    def post(self, route: str, message: object) -> dict[str, Any]:
        """Send a request that must succeed."""
        status, content = self.requester.send_request(route, message, "post")
        if status >= 300:
            raise RuntimeError(f"{route}: {content}")
        return content

    def launch_all(self) -> list[int]:
        """Queue all tasks and claim their attempts; return the attempts."""
        page = self.requester.send_request(f"/workflows/{self.workflow_id}/tasks", {"chunk_size": 10_000}, "get")[1]
        (resources,) = page["resources"]
        batch = {
            "array_id": page["array_ids"][0],
            "task_ids": page["task_ids"],
            "task_resources_id": resources["task_resources_id"],
            "cluster_id": resources["cluster_id"],
        }
        self.post(f"{self.route}/queue", {"batches": [batch]})
        request = SyncRequest(
            epoch=self.registration.epoch, capacity={"multiprocess": len(page["task_ids"])}, key=secrets.token_hex(8)
        )
        answer = self.requester.call(f"{self.route}/sync", request, SyncResponse)
        return [attempt for batch in answer.launches for attempt in batch.task_instance_ids]


def _run_request() -> RunRequest:
    return RunRequest(
        user="bench",
        host="bench",
        pid=os.getpid(),
        pid_start_time=0.0,
        version="0",
        next_report_increment=600.0,
        key=secrets.token_hex(8),
    )
