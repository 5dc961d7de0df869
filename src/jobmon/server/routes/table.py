"""Every route, the hot ones first. All lie under `/api/v1`; the messages are explained in `core/wire`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire import binding as bind
from jobmon.core.wire import definition, monitoring, run, sizing, steering
from jobmon.core.wire import failures as failing
from jobmon.core.wire import launching as hot
from jobmon.core.wire import server as about
from jobmon.core.wire import swarm as orchestrator
from jobmon.core.wire import watching as looking
from jobmon.server.migrations import upgrading
from jobmon.server.models.types import to_microseconds
from jobmon.server.queries import activity, explaining, exporting, failures, outputs, progress, recorded, usage
from jobmon.server.queries import monitoring as people
from jobmon.server.queries import sizing as judging
from jobmon.server.queries import steering as planning
from jobmon.server.queries import swarm as reading
from jobmon.server.routes import polls, taking
from jobmon.server.routes.endpoint import Call, Endpoint
from jobmon.server.usecases import (
    binding,
    concurrency,
    definitions,
    launching,
    purging,
    reporting,
    resuming,
    runs,
    triaging,
    watching,
)
from jobmon.server.usecases.steering import update_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[Call], Awaitable[Any]]


def _arguments(call: Call) -> tuple[Any, ...]:
    return call.ids if call.message is None else (*call.ids, call.message)


def _write(use_case: Callable[..., Any]) -> Handler:
    """A use case of the writer, with the ids of the path and the message."""

    async def handle(call: Call) -> Any:
        return await call.services.writer.run(use_case, *_arguments(call))

    return handle


def _read(query: Callable[..., Any]) -> Handler:
    """A query of any size."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *_arguments(call))

    return handle


def _glance(query: Callable[..., Any]) -> Handler:
    """A query of a few rows."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.glance(query, *_arguments(call))

    return handle


def _explain(query: Callable[..., Any]) -> Handler:
    """A query that needs to know the time."""

    async def handle(call: Call) -> Any:
        services = call.services
        now = explaining.Now(
            time=to_microseconds(services.clock.now()), silence_seconds=services.settings.silence_seconds
        )
        return await services.readers.run(query, *call.ids, now)

    return handle


async def _health(call: Call) -> about.Health:
    return call.services.health


async def _metrics(call: Call) -> about.Metrics:
    services = call.services
    found = await services.readers.run(activity.activity, to_microseconds(services.clock.now()))
    ignored = services.writer.ignored.items()
    return about.Metrics(
        started_at=services.health.started_at,
        requests=services.requests.count,
        transactions=services.writer.transactions,
        writes_waiting=services.writer.waiting,
        open_polls=services.feed.open_polls,
        ignored=[
            about.IgnoredChanges(machine=machine, source=source, target=target, count=count)
            for (machine, source, target), count in sorted(ignored)
        ],
        now=services.clock.now().isoformat(),
        migration=upgrading.HEAD,
        active_runs=found.runs,
        active_attempts=found.attempts,
        database_bytes=found.database_bytes,
    )


async def _users(call: Call) -> about.UsersResponse:
    services = call.services
    return await services.readers.run(activity.users, to_microseconds(services.clock.now()))


async def _open_to_other_hosts(call: Call) -> about.ServerAddress:
    """An embedded server is asked this by distributors whose jobs run elsewhere; an institute's is open already."""
    door = getattr(call.request.app.state, "open_to_other_hosts", None)
    if door is None:
        raise InvalidRequest("This server is none of a data folder; its address is the one in http.service_url.")
    return about.ServerAddress(address=await door())


async def _bind_tasks(call: Call) -> bind.TasksResponse:
    """Each slice is a short transaction of its own, so that others get their turn in between."""
    (workflow_id,) = call.ids
    slices = binding.task_slices(call.message)
    return binding.join_tasks([await call.services.writer.run(binding.find_tasks, workflow_id, one) for one in slices])


async def _purge(call: Call) -> steering.PurgeResponse:
    (workflow_id,) = call.ids
    run_use_case = call.services.writer.run
    await run_use_case(purging.start_purge, workflow_id, call.message)
    count = 0
    while gone := await run_use_case(purging.purge_tasks, workflow_id):
        count += gone
    await run_use_case(purging.purge_rest, workflow_id, call.message)
    while await run_use_case(purging.purge_dags):
        pass
    return steering.PurgeResponse(tasks=count)


async def _reset_tasks(call: Call) -> None:
    (workflow_id,) = call.ids
    run_use_case = call.services.writer.run
    after_id: int | None = await run_use_case(resuming.start_reset, workflow_id, call.message)
    while after_id is not None:
        after_id = await run_use_case(resuming.reset_chunk, workflow_id, after_id, call.message)


def _get(path: str, handle: Handler, reply: type, *, query: type | None = None) -> Endpoint:
    return Endpoint(method="GET", path=path, handle=handle, reply=reply, query=query)


def _post(path: str, handle: Handler, body: type | None, reply: type | None) -> Endpoint:
    return Endpoint(method="POST", path=path, handle=handle, body=body, reply=reply)


def _limit(path: str, read: Callable[..., Any], write: Callable[..., Any]) -> tuple[Endpoint, Endpoint]:
    return (
        _get(path, _glance(read), run.ConcurrencyResponse),
        Endpoint(
            method="PUT",
            path=path,
            handle=_write(write),
            body=run.ConcurrencyRequest,
            reply=run.ConcurrencyResponse,
        ),
    )


_RUN: Final = "/workflow_runs/{workflow_run_id:int}"
_WORKFLOW: Final = "/workflows/{workflow_id:int}"
_TASK: Final = "/tasks/{task_id:int}"

#: Found by a shortcut of their own.
HOT: Final = (
    _post(f"{_RUN}/sync", polls.sync, hot.SyncRequest, hot.SyncResponse),
    _post(f"{_RUN}/queue", polls.queue, orchestrator.QueueRequest, orchestrator.QueueResponse),
    _get(f"{_WORKFLOW}/changes", polls.changes, orchestrator.ChangesResponse, query=reading.ChangesQuery),
    _post("/worker/report", _write(reporting.worker_report), hot.WorkerReportRequest, hot.WorkerReportResponse),
    _post("/worker/take", taking.take, hot.WorkerTakeRequest, hot.WorkerTakeResponse),
    _post("/worker/start", _write(reporting.worker_start), hot.WorkerStartRequest, hot.WorkerStartResponse),
    _post(f"{_RUN}/heartbeat", _write(runs.heartbeat), run.HeartbeatRequest, run.RunStatusResponse),
)
_DEFINITIONS: Final = (
    _post("/tools", _write(definitions.find_tool), definition.ToolRequest, definition.ToolResponse),
    _post("/tools/{tool_id:int}/versions", _write(definitions.new_tool_version), None, definition.ToolResponse),
    _post(
        "/tool_versions/{tool_version_id:int}/task_templates",
        _write(definitions.find_templates),
        definition.TemplatesRequest,
        definition.TemplatesResponse,
    ),
    _get(
        "/tool_versions/{tool_version_id:int}/task_templates/{name}/versions",
        _glance(reading.template_versions),
        definition.TemplateVersionsResponse,
    ),
    _post("/clusters", _write(definitions.set_cluster), definition.ClusterRequest, definition.Cluster),
    _get("/clusters", _glance(reading.clusters), definition.ClustersResponse),
    Endpoint(method="DELETE", path="/clusters/{name}", handle=_write(definitions.remove_cluster), status=204),
    _post("/clusters/{name}/watch", _write(watching.watch), looking.WatchRequest, looking.WatchResponse),
    _post("/clusters/{name}/view", _write(watching.view), looking.ViewRequest, looking.ViewResponse),
    _post("/task_resources", _write(definitions.find_resources), bind.ResourcesRequest, bind.IdsResponse),
)
_BINDING: Final = (
    _post("/workflows", _write(binding.find_workflow), bind.WorkflowRequest, bind.WorkflowResponse),
    _post(f"{_WORKFLOW}/arrays", _write(binding.find_arrays), bind.ArraysRequest, bind.IdsResponse),
    _post(f"{_WORKFLOW}/tasks", _bind_tasks, bind.TasksRequest, bind.TasksResponse),
    _post("/dags/{dag_id:int}/edges", _write(binding.add_edges), bind.EdgesRequest, None),
    _post(f"{_WORKFLOW}/bound", _write(binding.finish_binding), None, bind.BoundResponse),
)
_RUNS: Final = (
    _post(f"{_WORKFLOW}/runs", _write(runs.create_run), run.RunRequest, run.RunResponse),
    _post(f"{_RUN}/status", _write(runs.set_run_status), run.RunStatusRequest, run.RunStatusResponse),
    _post(f"{_RUN}/terminate_task_instances", _write(resuming.terminate), None, run.TerminateResponse),
    _post(f"{_RUN}/triage", _write(triaging.triage), None, run.TriageResponse),
    _post(f"{_RUN}/distributors", _write(launching.register), hot.DistributorRequest, hot.DistributorResponse),
    _get(f"{_WORKFLOW}/active_runs", _write(resuming.active_runs_response), run.ActiveRunsResponse),
    _post(f"{_WORKFLOW}/resume", _write(resuming.resume), run.ResumeRequest, run.ResumeResponse),
    _get(f"{_WORKFLOW}/resume", _write(resuming.resume_state), run.ResumeResponse),
    _post(f"{_WORKFLOW}/stop", _write(resuming.stop), run.StopRequest, run.StopResponse),
    _post(f"{_WORKFLOW}/force_cleanup", _write(resuming.force_cleanup), None, run.ForceCleanupResponse),
    _post(f"{_WORKFLOW}/reset_tasks", _reset_tasks, run.ResetRequest, None),
    *_limit(f"{_WORKFLOW}/concurrency", reading.workflow_limit, concurrency.limit_workflow),
    *_limit("/arrays/{array_id:int}/concurrency", reading.array_limit, concurrency.limit_array),
    *_limit(f"{_WORKFLOW}/arrays/{{name}}/concurrency", reading.named_array_limit, concurrency.limit_arrays_by_name),
)
_STEERING: Final = (
    _post(
        f"{_WORKFLOW}/task_updates/plan",
        _read(planning.plan_update),
        steering.TaskUpdatePlanRequest,
        steering.TaskUpdatePlan,
    ),
    _post(f"{_WORKFLOW}/task_updates", _write(update_tasks), steering.TaskUpdateRequest, steering.TaskUpdateResponse),
    _post(f"{_WORKFLOW}/purge", _purge, steering.PurgeRequest, steering.PurgeResponse),
    _get(f"{_WORKFLOW}/history", _read(planning.history), steering.HistoryResponse, query=planning.HistoryQuery),
)
_READING: Final = (
    _get("/time", _glance(reading.server_time), about.ServerTime),
    _post("/server/open_to_other_hosts", _open_to_other_hosts, None, about.ServerAddress),
    _get("/health", _health, about.Health),
    _get("/metrics", _metrics, about.Metrics),
    _get("/server/users", _users, about.UsersResponse),
    _get(f"{_WORKFLOW}/metadata", _glance(reading.metadata), orchestrator.WorkflowMetadata),
    _get(f"{_WORKFLOW}/arrays", _glance(reading.arrays), orchestrator.ArraysResponse),
    _get(f"{_WORKFLOW}/tasks", _read(reading.tasks_page), orchestrator.TasksPage, query=reading.PageQuery),
    _get(
        f"{_WORKFLOW}/recorded_tasks",
        _read(recorded.recorded_tasks),
        bind.RecordedTasks,
        query=recorded.RecordedQuery,
    ),
    _post(
        f"{_WORKFLOW}/downstream",
        _read(reading.downstream),
        orchestrator.DownstreamRequest,
        orchestrator.DownstreamResponse,
    ),
    _get(f"{_WORKFLOW}/errors", _read(people.workflow_errors), orchestrator.ErrorsResponse, query=people.ErrorsQuery),
    _get(
        "/tasks/{task_id:int}/errors", _read(people.task_errors), orchestrator.ErrorsResponse, query=people.ErrorsQuery
    ),
    _get("/workflows", _read(people.workflows), monitoring.WorkflowsResponse, query=people.WorkflowsQuery),
    _get(
        f"{_WORKFLOW}/task_summaries",
        _read(people.task_summaries),
        monitoring.TaskSummariesResponse,
        query=people.TasksQuery,
    ),
    _get(_TASK, _read(people.task_detail), monitoring.TaskDetail),
    _get(f"{_TASK}/explanation", _explain(explaining.explain_task), monitoring.TaskExplanation),
    _get(
        f"{_TASK}/dependencies",
        _read(explaining.dependencies),
        monitoring.DependenciesResponse,
        query=explaining.DependenciesQuery,
    ),
    _get(f"{_WORKFLOW}/outputs", _read(outputs.task_outputs), monitoring.OutputsResponse, query=outputs.OutputsQuery),
    _get(
        f"{_WORKFLOW}/failures",
        _read(failures.workflow_failures),
        failing.FailuresResponse,
        query=failures.FailuresQuery,
    ),
    _get(f"{_WORKFLOW}/progress", _read(progress.progress), monitoring.ProgressResponse),
    _get(f"{_WORKFLOW}/explanation", _explain(explaining.explain_workflow), monitoring.WorkflowExplanation),
    _post(
        "/task_template_versions/{task_template_version_id:int}/resource_usage",
        _read(usage.template_usage),
        monitoring.UsageRequest,
        monitoring.UsageResponse,
    ),
    _post(
        f"{_WORKFLOW}/resource_usage",
        _read(usage.workflow_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _post(
        "/tools/{tool_id:int}/resource_usage",
        _read(usage.tool_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _get(
        "/task_template_versions/{task_template_version_id:int}/history",
        _read(judging.template_history),
        sizing.HistoryResponse,
    ),
    _post(f"{_WORKFLOW}/sizing", _read(judging.workflow_sizing), sizing.SizingRequest, sizing.SizingResponse),
    _get(f"{_WORKFLOW}/export", _read(exporting.export_page), monitoring.ExportPage, query=exporting.ExportQuery),
    _get("/task_instances/{task_instance_id:int}/log_tail", _read(people.log_tail), monitoring.LogTail),
)

ENDPOINTS: Final = (*HOT, *_DEFINITIONS, *_BINDING, *_RUNS, *_STEERING, *_READING)
