"""A small in-memory server for binding and runs, with the rules of their messages."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from jobmon.client.api import Tool, Workflow
from jobmon.core import wire
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import WorkflowAlreadyExists, WorkflowNotResumable
from jobmon.core.wire import binding, definition, launching, monitoring, run, sizing, swarm

if TYPE_CHECKING:
    from collections.abc import Iterator


NEWEST_RUN_ID = 9


@dataclass
class RecordedWorkflow:
    """The record of a workflow in the fake server."""

    workflow_id: int
    dag_id: int
    request: binding.WorkflowRequest
    status: str = WorkflowStatus.REGISTERING.value
    is_bound: bool = False
    was_started: bool = False
    tasks: dict[str, int] = field(default_factory=dict)  # node hash -> ID
    statuses: dict[str, str] = field(default_factory=dict)
    task_hashes: dict[str, str] = field(default_factory=dict)  # node hash -> hash of the task
    active: list[run.ActiveRun] = field(default_factory=list)
    kill_self: int = 0
    kill_self_of_agents: int = 0
    distributors: list[run.Distributor] = field(default_factory=list)


class FakeServer:
    """Responds to `call` as the server would. `requests` keeps every message."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.requests: list[tuple[str, Any]] = []
        self.tools: dict[str, list[int]] = {}
        self.templates: dict[tuple[Any, ...], int] = {}
        self.clusters: dict[str, definition.Cluster] = {}
        self.workflows: dict[str, RecordedWorkflow] = {}
        self.resources: dict[str, int] = {}
        self.dags: dict[str, int] = {}
        self.complete_dags: set[int] = set()
        self.errors: list[swarm.TaskError] = []
        self.resume_answers: list[Any] = []
        self.usage = monitoring.UsageResponse(num_tasks=0)
        self.history = sizing.HistoryResponse(seconds=[], cpu_seconds=[], memory_gib=[])

    def call(self, route: str, message: Any, reply: Any, method: str = "post", **_: Any) -> Any:
        """Respond to one request; check that messages can be encoded."""
        wire.encode(message)
        self.requests.append((f"{method} {route}", message))
        parts = [part for part in route.split("/") if part]
        name = "_".join([method, *(part for part in parts if not part.isdigit())])
        numbers = [int(part) for part in parts if part.isdigit()]
        return getattr(self, name)(*numbers, message)

    def within(self, seconds: float) -> FakeServer:
        """Return the server itself: it responds at once."""
        return self

    def call_each(self, requests: Any, reply: Any) -> Any:
        """Respond to one request after another."""
        for route, message in requests:
            yield self.call(route, message, reply)

    def sent(self, kind: type) -> list[Any]:
        """Return the received messages of a type."""
        return [message for _, message in self.requests if isinstance(message, kind)]

    # -- definitions

    def post_tools(self, message: definition.ToolRequest) -> definition.ToolResponse:
        versions = self.tools.setdefault(message.name, [])
        if not versions:
            versions.append(next(self._ids))
        return definition.ToolResponse(tool_id=1, name=message.name, tool_version_ids=versions)

    def post_tools_versions(self, tool_id: int, message: Any) -> definition.ToolResponse:
        name, versions = next(iter(self.tools.items()))
        versions.append(next(self._ids))
        return definition.ToolResponse(tool_id=tool_id, name=name, tool_version_ids=versions)

    def post_tool_versions_task_templates(
        self, version: int, message: definition.TemplatesRequest
    ) -> definition.TemplatesResponse:
        keys = [(version, wire.encode(spec)) for spec in message.templates]
        ids = [self.templates.setdefault(key, len(self.templates) + 1) for key in keys]
        return definition.TemplatesResponse(task_template_ids=ids, task_template_version_ids=ids)

    def get_tool_versions_task_templates(self, version: int, message: Any) -> definition.ToolTemplatesResponse:
        templates = [
            definition.TemplateVersionsResponse(
                task_template_id=number,
                versions=[
                    definition.TemplateVersion(
                        task_template_version_id=number, template=wire.decode(definition.TemplateSpec, spec)
                    )
                ],
            )
            for (of, spec), number in self.templates.items()
            if of == version
        ]
        return definition.ToolTemplatesResponse(templates=templates)

    def get_clusters(self, message: Any) -> definition.ClustersResponse:
        return definition.ClustersResponse(clusters=list(self.clusters.values()))

    def post_clusters(self, message: definition.ClusterRequest) -> definition.Cluster:
        queues = [
            definition.Queue(queue_id=next(self._ids), queue_name=queue.queue_name, parameters=queue.parameters)
            for queue in message.queues
        ]
        cluster = definition.Cluster(
            cluster_id=next(self._ids), name=message.name, plugin=message.plugin, connection={}, queues=queues
        )
        self.clusters[message.name] = cluster
        return cluster

    # -- binding

    def post_workflows(self, message: binding.WorkflowRequest) -> binding.WorkflowResponse:
        known = self.workflows.get(message.workflow_args_hash)
        newly_created = known is None
        if known is None:
            dag_id = self.dags.setdefault(message.dag_hash, next(self._ids))
            known = RecordedWorkflow(next(self._ids), dag_id, message)
            self.workflows[message.workflow_args_hash] = known
            if not message.edge_set_count:
                self.complete_dags.add(dag_id)
        if (known.request.dag_hash, known.request.task_hash) != (message.dag_hash, message.task_hash):
            raise WorkflowAlreadyExists("different tasks")
        return binding.WorkflowResponse(
            workflow_id=known.workflow_id,
            dag_id=known.dag_id,
            status=known.status,
            newly_created=newly_created,
            is_bound=known.is_bound,
            was_started=known.was_started,
            dag_is_complete=known.dag_id in self.complete_dags,
        )

    def workflow(self, workflow_id: int) -> RecordedWorkflow:
        return next(each for each in self.workflows.values() if each.workflow_id == workflow_id)

    def post_workflows_arrays(self, workflow_id: int, message: binding.ArraysRequest) -> binding.IdsResponse:
        return binding.IdsResponse(ids=[array.task_template_version_id * 100 for array in message.arrays])

    def post_task_resources(self, message: binding.ResourcesRequest) -> binding.IdsResponse:
        keys = [wire.encode(each).decode() for each in message.resources]
        return binding.IdsResponse(ids=[self.resources.setdefault(key, len(self.resources) + 1) for key in keys])

    def post_workflows_tasks(self, workflow_id: int, message: binding.TasksRequest) -> binding.TasksResponse:
        known = self.workflow(workflow_id)
        columns = (message.names, message.commands, message.task_hashes, message.max_attempts, message.scales_index)
        assert {len(column) for column in columns} == {len(message.node_hashes)}
        ids = [known.tasks.setdefault(node, next(self._ids)) for node in message.node_hashes]
        known.task_hashes.update(zip(message.node_hashes, message.task_hashes, strict=True))
        statuses = [known.statuses.get(node, "G") for node in message.node_hashes]
        return binding.TasksResponse(task_ids=ids, node_ids=[task_id * 10 for task_id in ids], statuses=statuses)

    def get_workflows_recorded_tasks(self, workflow_id: int, message: dict[str, int]) -> binding.RecordedTasks:
        known = self.workflow(workflow_id)
        after = sorted((task_id, node) for node, task_id in known.tasks.items() if task_id > message["after_id"])
        found = after[: message["count"]]
        return binding.RecordedTasks(
            task_ids=[task_id for task_id, _ in found],
            node_ids=[task_id * 10 for task_id, _ in found],
            statuses=[known.statuses.get(node, "G") for _, node in found],
            hash=sha256("".join(known.task_hashes[node] for _, node in found).encode()).hexdigest(),
        )

    def post_dags_edges(self, dag_id: int, message: binding.EdgesRequest) -> dict[str, Any]:
        if message.last:
            self.complete_dags.add(dag_id)
        return {}

    def post_workflows_bound(self, workflow_id: int, message: Any) -> binding.BoundResponse:
        known = self.workflow(workflow_id)
        assert len(known.tasks) == known.request.task_count
        known.is_bound = True
        return binding.BoundResponse(workflow_id=workflow_id, task_count=len(known.tasks))

    # -- runs

    def get_workflows_active_runs(self, workflow_id: int, message: Any) -> run.ActiveRunsResponse:
        known = self.workflow(workflow_id)
        return run.ActiveRunsResponse(workflow_id=workflow_id, workflow_status=known.status, runs=known.active)

    def post_workflows_runs(self, workflow_id: int, message: run.RunRequest) -> run.RunResponse:
        known = self.workflow(workflow_id)
        if known.active:
            raise WorkflowNotResumable(f"Run {known.active[0].workflow_run_id} is active.")
        run_id = next(self._ids)
        known.active.append(
            run.ActiveRun(
                workflow_run_id=run_id,
                status="G",
                user=message.user,
                host=message.host,
                pid=message.pid,
                pid_start_time=message.pid_start_time,
                heartbeat_overdue=False,
            )
        )
        clusters = [
            launching.ClusterInfo(cluster_id=one.cluster_id, name=name, plugin=one.plugin, connection={})
            for name, one in self.clusters.items()
        ]
        return run.RunResponse(workflow_run_id=run_id, status=WorkflowRunStatus.REGISTERED.value, clusters=clusters)

    def post_workflow_runs_status(self, run_id: int, message: run.RunStatusRequest) -> run.RunStatusResponse:
        for known in self.workflows.values():
            if message.status == WorkflowRunStatus.BOUND and any(
                each.workflow_run_id == run_id for each in known.active
            ):
                known.was_started = True
        return run.RunStatusResponse(status=message.status)

    def post_workflows_resume(self, workflow_id: int, message: run.ResumeRequest) -> run.ResumeResponse:
        known = self.workflow(workflow_id)
        known.active = [each for each in known.active if each.workflow_run_id not in message.gone_run_ids]
        return self.get_workflows_resume(workflow_id, None)

    def get_workflows_resume(self, workflow_id: int, message: Any) -> run.ResumeResponse:
        known = self.workflow(workflow_id)
        if self.resume_answers:
            self.resume_answers.pop(0)(known)
        return run.ResumeResponse(
            is_resumable=not known.active and not known.kill_self,
            workflow_status=known.status,
            active_runs=known.active,
            kill_self=known.kill_self,
            kill_self_of_agents=known.kill_self_of_agents,
            distributors=known.distributors,
            newest_run_id=NEWEST_RUN_ID,
        )

    def post_workflows_force_cleanup(self, workflow_id: int, message: Any) -> run.ForceCleanupResponse:
        known = self.workflow(workflow_id)
        cleaned, known.kill_self = known.kill_self, 0
        return run.ForceCleanupResponse(cleaned=cleaned)

    def post_workflow_runs_triage(self, run_id: int, message: Any) -> run.TriageResponse:
        return run.TriageResponse(triaging=0, no_heartbeat=0)

    def post_task_template_versions_resource_usage(self, version: int, message: Any) -> monitoring.UsageResponse:
        return self.usage

    def get_task_template_versions_history(self, version: int, message: Any) -> sizing.HistoryResponse:
        return self.history

    def post_workflows_reset_tasks(self, workflow_id: int, message: run.ResetRequest) -> dict[str, Any]:
        return {}

    def get_workflows_errors(self, workflow_id: int, message: Any) -> swarm.ErrorsResponse:
        return swarm.ErrorsResponse(errors=self.errors)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def tool(server: FakeServer) -> Tool:
    return Tool("census", requester=server)


@pytest.fixture
def make_workflow(tool: Tool) -> Iterator[Any]:
    """Create a workflow of three stages: a source, some tasks in the middle, and one that gathers."""

    def make(workflow_args: str = "args", middle: int = 3, **kwargs: Any) -> Workflow:
        template = tool.get_task_template("step", "echo {where}", node_args=["where"])
        workflow = tool.create_workflow(workflow_args, default_cluster_name="dummy", **kwargs)
        first = template.create_task(where="first")
        middles = [template.create_task(where=f"middle{i}", upstream_tasks=[first]) for i in range(middle)]
        workflow.add_tasks([first, *middles, template.create_task(where="last", upstream_tasks=middles)])
        return workflow

    return make
