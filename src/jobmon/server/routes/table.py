"""All routes, the hot ones first. All are under `/api/v1`; `core/wire` documents the messages."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import wire
from jobmon.core.credentials import Agent, Owner, Part, Right
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire import agents as serving
from jobmon.core.wire import binding as bind
from jobmon.core.wire import changes, definition, monitoring, run, sizing, steering
from jobmon.core.wire import credentials as secret
from jobmon.core.wire import expanding as growing
from jobmon.core.wire import failures as failing
from jobmon.core.wire import files as filing
from jobmon.core.wire import graph as drawn
from jobmon.core.wire import launching as hot
from jobmon.core.wire import server as about
from jobmon.core.wire import swarm as orchestrator
from jobmon.core.wire import timeline as times
from jobmon.core.wire import watching as looking
from jobmon.core.wire.fields import INT64_MAX
from jobmon.server import exposition, retention
from jobmon.server.database import meaning
from jobmon.server.migrations import upgrading
from jobmon.server.models.types import to_microseconds
from jobmon.server.queries import (
    activity,
    critical,
    edited,
    expansions,
    explain,
    exporting,
    failures,
    files,
    graphs,
    logs,
    matrix,
    outputs,
    progress,
    recorded,
    task_sets,
    timeline,
    usage,
    viewing,
)
from jobmon.server.queries import definition as described
from jobmon.server.queries import monitoring as people
from jobmon.server.queries import sizing as judging
from jobmon.server.queries import steering as planning
from jobmon.server.queries import swarm as reading
from jobmon.server.routes import agents as agent_polls
from jobmon.server.routes import credentials, polls, streaming, taking
from jobmon.server.routes.endpoint import STRANGER, Call, Endpoint
from jobmon.server.usecases import (
    adjusting,
    agents,
    attributes,
    binding,
    compacting,
    concurrency,
    definitions,
    editing,
    expanding,
    holding,
    launching,
    prioritizing,
    private_dag,
    reporting,
    resuming,
    runs,
    triaging,
    versions,
    watching,
)
from jobmon.server.usecases.steering import update_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobmon.server.services import Services

    Handler = Callable[[Call], Awaitable[Any]]


OPEN: Final = Right.OPEN
ENTER: Final = Right.ENTER
READ: Final = Right.READ
AGENT: Final = Right.AGENT
STEER: Final = Right.STEER
WRITE: Final = Right.WRITE
ADMINISTER: Final = Right.ADMINISTER


def _arguments(call: Call) -> tuple[Any, ...]:
    return call.ids if call.message is None else (*call.ids, call.message)


def _write(use_case: Callable[..., Any]) -> Handler:
    """Return a handler that runs a use case of the writer, with the IDs of the path and the message."""

    async def handle(call: Call) -> Any:
        return await call.write(use_case, *_arguments(call))

    return handle


def _write_jointly(use_case: Callable[..., Any]) -> Handler:
    """Return a handler that runs a joint use case of the writer, which records nothing in the audit trail."""

    async def handle(call: Call) -> Any:
        return await call.services.writer.run_jointly(use_case, call.message)

    return handle


def _read(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query of any size."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *_arguments(call))

    return handle


def _read_large(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that may take seconds; other queries do not wait for it."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run_large(query, *_arguments(call))

    return handle


def _glance(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query of a few rows."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.glance(query, *_arguments(call))

    return handle


def _read_files(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that reads output files."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run_large(query, *_arguments(call), call.services.output_files)

    return handle


def _now(services: Services) -> explain.Now:
    return explain.Now(time=to_microseconds(services.clock.now()), silence_seconds=services.settings.silence_seconds)


def _explain(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that needs the time."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *call.ids, _now(call.services))

    return handle


def _recall(query: Callable[..., Any], *, large: bool = False) -> Handler:
    """Return a handler for a query that reuses what others have computed recently."""

    async def handle(call: Call) -> Any:
        read = call.services.readers.run_large if large else call.services.readers.run
        return await read(query, *_arguments(call), call.services.recent)

    return handle


def _explain_workflow(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query about a workflow that needs the time and reuses recent results."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *call.ids, _now(call.services), call.services.recent)

    return handle


async def _timeline(call: Call) -> times.Timeline:
    services = call.services
    now = to_microseconds(services.clock.now())
    return await services.readers.run_large(timeline.timeline, *call.ids, call.message, now, services.recent)


async def _health(call: Call) -> about.Health:
    health = call.services.health
    return about.Health(message_version=health.message_version) if call.principal is STRANGER else health


async def _ready(call: Call) -> about.Health:
    """Answer like `_health`, but only while the database responds."""
    await call.services.readers.run(activity.responds)
    return await _health(call)


async def _metrics(call: Call) -> about.Metrics:
    services = call.services
    found = await services.readers.run(activity.load, to_microseconds(services.clock.now()))
    return wire.replace(
        _counts_of_process(services),
        active_runs=sum(found.runs.values()),
        active_attempts=found.attempts,
        database_bytes=found.database_bytes,
    )


def _counts_of_process(services: Services) -> about.Metrics:
    """Return what this process counts by itself."""
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
    )


async def _exposition(call: Call) -> str:
    """Return the metrics for Prometheus, also while the database does not respond."""
    services = call.services
    load = None
    try:
        load = await services.readers.run(activity.load, to_microseconds(services.clock.now()))
    except Exception as error:
        if meaning(error) is None:
            raise
    return exposition.exposition(
        exposition.Measured(
            version=services.health.version,
            dialect=services.health.database,
            metrics=_counts_of_process(services),
            writer=services.writer.work,
            load=load,
            notifications={} if services.notifier is None else services.notifier.counts,
        )
    )


async def _time(call: Call) -> about.ServerTime:
    return about.ServerTime(time=call.services.clock.now().isoformat())


async def _users(call: Call) -> about.UsersResponse:
    services = call.services
    return await services.readers.run(activity.users, to_microseconds(services.clock.now()))


async def _open_to_other_hosts(call: Call) -> about.ServerAddress:
    """Open an embedded server to other hosts, for distributors whose jobs run there; a shared one is already open."""
    door = getattr(call.request.app.state, "open_to_other_hosts", None)
    if door is None:
        raise InvalidRequest("This server does not belong to a data folder; use the address in http.service_url.")
    addresses = await door(call.message.workflow_run_id)
    return about.ServerAddress(address=addresses[0], addresses=addresses)


async def _register(call: Call) -> hot.DistributorResponse:
    """Register a distributor, and add the credential of the workers that it is going to start."""
    response: hot.DistributorResponse = await call.write(launching.register, *_arguments(call))
    return wire.replace(response, agent_token=call.services.authority.agent_token(Agent(response.workflow_id)))


async def _register_agent(call: Call) -> serving.AgentResponse:
    """Register an agent with its own credential; after the agent is closed, that only reveals that it is over."""
    response: serving.AgentResponse = await call.write(agents.register, *_arguments(call))
    principal = Agent.of(Part.AGENT, response.workflow_id, response.agent_id)
    return wire.replace(response, token=call.services.authority.agent_token(principal))


async def _bind_tasks(call: Call) -> bind.TasksResponse:
    """Bind tasks in slices, each in its own short transaction, so that other requests can run in between."""
    (workflow_id,) = call.ids
    slices = binding.task_slices(call.message)
    return binding.join_tasks([await call.write(binding.find_tasks, workflow_id, one) for one in slices])


async def _set_cluster(call: Call) -> Any:
    """Set a cluster. Users may add what their runs need; only the owner changes what the jobs of all users start."""
    use_case = definitions.set_cluster if isinstance(call.principal, Owner) else definitions.add_to_cluster
    return await call.write(use_case, call.message)


async def _redefine_tasks(call: Call) -> bind.TasksResponse:
    (workflow_id,) = call.ids
    slices = binding.task_slices(call.message)
    return binding.join_tasks([await call.write(binding.redefine_tasks, workflow_id, one) for one in slices])


async def _start_version(call: Call) -> changes.VersionResponse:
    (workflow_id,) = call.ids
    await call.write(versions.start_version, workflow_id, call.message)
    while not await call.write(private_dag.make_dag_private, workflow_id):
        pass
    started: changes.VersionResponse = await call.write(versions.open_version, workflow_id)
    return started


async def _seal_version(call: Call) -> changes.VersionResponse:
    workflow_id, number = call.ids
    await call.write(versions.seal, workflow_id, number, call.message)
    return await _apply_version(call)


async def _apply_version(call: Call) -> changes.VersionResponse:
    """Apply a sealed version, each part in its own transaction."""
    workflow_id, is_left, superseded = call.ids[0], True, []
    while is_left:
        is_left, replaced = await call.write(versions.apply_part, workflow_id)
        superseded += replaced
    present: changes.VersionResponse = await call.write(versions.present_version, workflow_id)
    return wire.replace(present, superseded=superseded)


async def _background_resume(call: Call) -> run.BackgroundResumeResponse:
    (workflow_id,) = call.ids
    resumer = call.services.resumer
    if resumer is None:
        raise InvalidRequest(
            f"This server cannot start runs. Resume the workflow in a terminal: jobmon workflow resume {workflow_id}"
        )
    await call.write(resuming.order_resume, *_arguments(call))
    return await resumer.resume(workflow_id)


async def _purge(call: Call) -> steering.PurgeResponse:
    (workflow_id,) = call.ids
    services = call.services
    count = await retention.purge(services.database, services.writer, call.write, workflow_id, call.message)
    return steering.PurgeResponse(tasks=count)


async def _compact(call: Call) -> about.CompactResponse:
    services = call.services
    if not call.message.only_if_useful:
        await retention.delete_unused_nodes(services.database, services.writer, 0, INT64_MAX)
    is_anything_alive = partial(activity.is_anything_alive, now=to_microseconds(services.clock.now()))
    response = await services.writer.run_alone(
        compacting.compact, call.message, services.database.path, is_anything_alive
    )
    await call.write(compacting.record, response)
    return response


async def _reset_tasks(call: Call) -> None:
    (workflow_id,) = call.ids
    after_id: int | None = await call.write(resuming.start_reset, workflow_id, call.message)
    while after_id is not None:
        after_id = await call.write(resuming.reset_chunk, workflow_id, after_id, call.message)


def _get(path: str, handle: Handler, reply: type, *, query: type | None = None, right: Right = Right.READ) -> Endpoint:
    return Endpoint(right=right, method="GET", path=path, handle=handle, reply=reply, query=query)


#: A time-dependent answer stays valid this long while nothing is written.
_TIMED_SECONDS: Final = 2.0


def _shared(endpoint: Endpoint, unchanged_seconds: float = math.inf) -> Endpoint:
    """Share the answers of a route among its readers; see `server.answers`."""
    return replace(endpoint, unchanged_seconds=unchanged_seconds)


def _post(right: Right, path: str, handle: Handler, body: type | None, reply: type | None) -> Endpoint:
    return Endpoint(right=right, method="POST", path=path, handle=handle, body=body, reply=reply)


def _delete(right: Right, path: str, handle: Handler) -> Endpoint:
    return Endpoint(right=right, method="DELETE", path=path, handle=handle, status=204)


def _limit(path: str, read: Callable[..., Any], write: Callable[..., Any]) -> tuple[Endpoint, Endpoint]:
    return (
        _get(path, _glance(read), run.ConcurrencyResponse),
        Endpoint(
            right=STEER,
            method="PUT",
            path=path,
            handle=_write(write),
            body=run.ConcurrencyRequest,
            reply=run.ConcurrencyResponse,
        ),
    )


_RUN: Final = "/workflow_runs/{workflow_run_id:id}"
_WORKFLOW: Final = "/workflows/{workflow_id:id}"
_TASK: Final = "/tasks/{task_id:id}"

#: Found by the shortcut in `routes.shortcut`.
HOT: Final = (
    _post(WRITE, f"{_RUN}/sync", polls.sync, hot.SyncRequest, hot.SyncResponse),
    _post(WRITE, f"{_RUN}/queue", polls.queue, orchestrator.QueueRequest, orchestrator.QueueResponse),
    _get(f"{_WORKFLOW}/changes", polls.changes, orchestrator.ChangesResponse, query=reading.ChangesQuery),
    _post(
        AGENT,
        "/worker/report",
        _write_jointly(reporting.worker_reports),
        hot.WorkerReportRequest,
        hot.WorkerReportResponse,
    ),
    _post(AGENT, "/worker/take", taking.take, hot.WorkerTakeRequest, hot.WorkerTakeResponse),
    _post(AGENT, "/worker/start", _write(reporting.worker_start), hot.WorkerStartRequest, hot.WorkerStartResponse),
    _post(AGENT, "/agents/{agent_id:id}/sync", agent_polls.sync, serving.AgentSyncRequest, serving.AgentSyncResponse),
    _post(WRITE, f"{_RUN}/heartbeat", _write(runs.heartbeat), run.HeartbeatRequest, run.RunStatusResponse),
)
_DEFINITIONS: Final = (
    _post(WRITE, "/tools", _write(definitions.find_tool), definition.ToolRequest, definition.ToolResponse),
    _post(WRITE, "/tools/{tool_id:id}/versions", _write(definitions.new_tool_version), None, definition.ToolResponse),
    _post(
        WRITE,
        "/tool_versions/{tool_version_id:id}/task_templates",
        _write(definitions.find_templates),
        definition.TemplatesRequest,
        definition.TemplatesResponse,
    ),
    _get(
        "/tool_versions/{tool_version_id:id}/task_templates",
        _glance(reading.templates),
        definition.ToolTemplatesResponse,
    ),
    _get(
        "/tool_versions/{tool_version_id:id}/task_templates/{name}/versions",
        _glance(reading.template_versions),
        definition.TemplateVersionsResponse,
    ),
    _post(WRITE, "/clusters", _set_cluster, definition.ClusterRequest, definition.Cluster),
    _get("/clusters", _glance(reading.clusters), definition.ClustersResponse),
    _delete(ADMINISTER, "/clusters/{name}", _write(definitions.remove_cluster)),
    _post(WRITE, "/clusters/{name}/watch", _write(watching.watch), looking.WatchRequest, looking.WatchResponse),
    _post(WRITE, "/clusters/{name}/view", _write(watching.view), looking.ViewRequest, looking.ViewResponse),
    _post(WRITE, "/task_resources", _write(definitions.find_resources), bind.ResourcesRequest, bind.IdsResponse),
)
_BINDING: Final = (
    _post(WRITE, "/workflows", _write(binding.find_workflow), bind.WorkflowRequest, bind.WorkflowResponse),
    _post(WRITE, f"{_WORKFLOW}/arrays", _write(binding.find_arrays), bind.ArraysRequest, bind.IdsResponse),
    _post(WRITE, f"{_WORKFLOW}/tasks", _bind_tasks, bind.TasksRequest, bind.TasksResponse),
    _post(WRITE, f"{_WORKFLOW}/redefined_tasks", _redefine_tasks, bind.RedefineRequest, bind.TasksResponse),
    _post(WRITE, "/dags/{dag_id:id}/edges", _write(binding.add_edges), bind.EdgesRequest, None),
    _post(WRITE, f"{_WORKFLOW}/bound", _write(binding.finish_binding), None, bind.BoundResponse),
)
_RUNS: Final = (
    _post(WRITE, "/agents", _register_agent, serving.AgentRequest, serving.AgentResponse),
    _post(WRITE, f"{_WORKFLOW}/runs", _write(runs.create_run), run.RunRequest, run.RunResponse),
    _post(WRITE, f"{_RUN}/lead", _write(runs.lead_run), run.LeadRequest, run.RunResponse),
    _get(_RUN, _write(runs.find_run), run.RunResponse),
    _post(WRITE, f"{_RUN}/status", _write(runs.set_run_status), run.RunStatusRequest, run.RunStatusResponse),
    _post(WRITE, f"{_RUN}/terminate_task_instances", _write(resuming.terminate), None, run.TerminateResponse),
    _post(WRITE, f"{_RUN}/triage", _write(triaging.triage), None, run.TriageResponse),
    _post(WRITE, f"{_RUN}/distributors", _register, hot.DistributorRequest, hot.DistributorResponse),
    _get(f"{_WORKFLOW}/active_runs", _write(resuming.active_runs_response), run.ActiveRunsResponse),
    _post(WRITE, f"{_WORKFLOW}/resume", _write(resuming.resume), run.ResumeRequest, run.ResumeResponse),
    _get(f"{_WORKFLOW}/resume", _write(resuming.resume_state), run.ResumeResponse),
    _post(
        STEER,
        f"{_WORKFLOW}/background_resume",
        _background_resume,
        run.BackgroundResumeRequest,
        run.BackgroundResumeResponse,
    ),
    _post(STEER, f"{_WORKFLOW}/stop", _write(resuming.stop), run.StopRequest, run.StopResponse),
    _post(WRITE, f"{_WORKFLOW}/force_cleanup", _write(resuming.force_cleanup), None, run.ForceCleanupResponse),
    _post(WRITE, f"{_WORKFLOW}/reset_tasks", _reset_tasks, run.ResetRequest, None),
    _post(WRITE, f"{_TASK}/attributes", _write(attributes.add_task_attributes), run.TaskAttributesRequest, None),
    *_limit(f"{_WORKFLOW}/concurrency", reading.workflow_limit, concurrency.limit_workflow),
    *_limit("/arrays/{array_id:id}/concurrency", reading.array_limit, concurrency.limit_array),
    *_limit(f"{_WORKFLOW}/arrays/{{name}}/concurrency", reading.named_array_limit, concurrency.limit_arrays_by_name),
)
_VERSION: Final = f"{_WORKFLOW}/versions/{{number:id}}"
_VERSIONS: Final = (
    _post(WRITE, f"{_WORKFLOW}/versions", _start_version, changes.VersionRequest, changes.VersionResponse),
    _get(f"{_WORKFLOW}/versions", _read(described.versions), changes.VersionsResponse),
    _get(f"{_WORKFLOW}/edited_tasks", _read(edited.edits), changes.EditsResponse),
    _get(f"{_TASK}/revisions", _read(edited.revisions), changes.RevisionsResponse),
    _post(WRITE, f"{_WORKFLOW}/complete_version", _apply_version, None, changes.VersionResponse),
    _post(WRITE, f"{_WORKFLOW}/drop_version", _write(versions.drop_version), changes.DropRequest, None),
    _post(WRITE, f"{_VERSION}/tasks", _write(versions.stage_tasks), changes.StagedTasks, bind.TasksResponse),
    _post(WRITE, f"{_VERSION}/definitions", _write(versions.stage_definitions), changes.StagedDefinitions, None),
    _post(WRITE, f"{_VERSION}/upstreams", _write(versions.stage_upstreams), changes.StagedUpstreams, None),
    _post(WRITE, f"{_VERSION}/statuses", _write(versions.stage_statuses), changes.StagedStatuses, None),
    _post(WRITE, f"{_VERSION}/seal", _seal_version, changes.SealRequest, changes.VersionResponse),
)
_EXPANSION: Final = f"{_RUN}/expansions/{{task_id:id}}"
_EXPANSIONS: Final = (
    _post(WRITE, f"{_EXPANSION}/call", _write(expanding.call), growing.CallRequest, growing.CallResponse),
    _post(
        WRITE, f"{_EXPANSION}/failed", _write(expanding.call_failed), growing.CallFailedRequest, growing.CallResponse
    ),
    _get(
        f"{_WORKFLOW}/expansions",
        _read(expansions.expansions_page),
        growing.ExpansionsPage,
        query=expansions.AfterQuery,
    ),
    _get(
        f"{_TASK}/upstream_tasks",
        _read(expansions.upstream_tasks),
        growing.UpstreamTasks,
        query=expansions.AfterQuery,
    ),
)
_STEERING: Final = (
    _post(
        READ,
        f"{_WORKFLOW}/task_updates/plan",
        _read(planning.plan_update),
        steering.TaskUpdatePlanRequest,
        steering.TaskUpdatePlan,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/task_sets/plan",
        _read_large(task_sets.plan_set),
        steering.TaskSetRequest,
        steering.TaskSetPlan,
    ),
    _post(
        STEER,
        f"{_WORKFLOW}/task_updates",
        _write(update_tasks),
        steering.TaskUpdateRequest,
        steering.TaskUpdateResponse,
    ),
    _post(STEER, f"{_WORKFLOW}/holds", _write(holding.hold), steering.HoldRequest, steering.HoldResponse),
    _post(
        STEER,
        f"{_WORKFLOW}/priorities",
        _write(prioritizing.set_priority),
        steering.PriorityRequest,
        steering.PriorityResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/edits/plan",
        _read(planning.plan_edit),
        steering.EditPlanRequest,
        steering.EditPlan,
    ),
    _post(WRITE, f"{_WORKFLOW}/edits", _write(editing.edit), steering.EditRequest, steering.EditResponse),
    _post(STEER, f"{_WORKFLOW}/adjustments", _write(adjusting.adjust), steering.AdjustRequest, steering.EditResponse),
    _post(WRITE, f"{_WORKFLOW}/purge", _purge, steering.PurgeRequest, steering.PurgeResponse),
    _get(f"{_WORKFLOW}/history", _read(planning.history), steering.HistoryResponse, query=planning.HistoryQuery),
)
_WORKFLOWS: Final = _shared(
    _get("/workflows", _read(people.workflows), monitoring.WorkflowsResponse, query=people.WorkflowsQuery)
)
_VIEW: Final = _shared(
    _get(f"{_WORKFLOW}/view", _explain_workflow(viewing.workflow_view), monitoring.WorkflowView), _TIMED_SECONDS
)
_STREAM: Final = streaming.stream(
    f"{_WORKFLOW}/stream",
    {
        "workflow": streaming.Part(
            endpoint=_WORKFLOWS,
            ids=lambda workflow_id: (),
            message=lambda workflow_id: people.WorkflowsQuery(workflow_id=[workflow_id], counts=False),
            query_string=lambda workflow_id: b"workflow_id=%d&counts=false" % workflow_id,
        ),
        "view": streaming.Part(
            endpoint=_VIEW,
            ids=lambda workflow_id: (workflow_id,),
            message=lambda workflow_id: None,
            query_string=lambda workflow_id: b"",
        ),
    },
)
_READING: Final = (
    _get("/time", _time, about.ServerTime),
    _post(ADMINISTER, "/database/compact", _compact, about.CompactRequest, about.CompactResponse),
    _post(ADMINISTER, "/server/open_to_other_hosts", _open_to_other_hosts, about.OpenRequest, about.ServerAddress),
    _get("/health", _health, about.Health, right=OPEN),
    _get("/ready", _ready, about.Health, right=OPEN),
    _get("/metrics", _metrics, about.Metrics),
    Endpoint(
        right=READ,
        method="GET",
        path="/metrics",
        handle=_exposition,
        media_type=exposition.MEDIA_TYPE,
        root="",
    ),
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
    _get(
        "/recorded_workflow",
        _glance(described.recorded_workflow),
        changes.RecordedWorkflow,
        query=described.RecordedWorkflowQuery,
    ),
    _get(f"{_WORKFLOW}/recorded", _glance(described.recorded_workflow_by_id), changes.RecordedWorkflow),
    _get(
        f"{_WORKFLOW}/definition",
        _read(described.definition_page),
        changes.DefinitionPage,
        query=described.DefinitionQuery,
    ),
    _post(
        READ, f"{_WORKFLOW}/upstreams", _read(described.upstreams), changes.UpstreamsRequest, changes.UpstreamsResponse
    ),
    _post(
        READ,
        f"{_WORKFLOW}/downstream",
        _read(reading.downstream),
        orchestrator.DownstreamRequest,
        orchestrator.DownstreamResponse,
    ),
    _get(f"{_WORKFLOW}/errors", _read(people.workflow_errors), orchestrator.ErrorsResponse, query=people.ErrorsQuery),
    _get(
        "/tasks/{task_id:id}/errors", _read(people.task_errors), orchestrator.ErrorsResponse, query=people.ErrorsQuery
    ),
    _WORKFLOWS,
    _shared(
        _get(
            f"{_WORKFLOW}/task_summaries",
            _read(people.task_summaries),
            monitoring.TaskSummariesResponse,
            query=people.TasksQuery,
        )
    ),
    _shared(_get(_TASK, _read(people.task_detail), monitoring.TaskDetail)),
    _shared(_get(f"{_TASK}/explanation", _explain(explain.explain_task), monitoring.TaskExplanation), _TIMED_SECONDS),
    _get(
        f"{_TASK}/dependencies",
        _read(explain.dependencies),
        monitoring.DependenciesResponse,
        query=explain.DependenciesQuery,
    ),
    _get(
        f"{_WORKFLOW}/outputs",
        _read_large(outputs.task_outputs),
        monitoring.OutputsResponse,
        query=outputs.OutputsQuery,
    ),
    _get(f"{_WORKFLOW}/files", _read_large(files.declared_files), filing.DeclaredFiles, query=files.FilesQuery),
    _shared(
        _get(
            f"{_WORKFLOW}/failures",
            _recall(failures.workflow_failures, large=True),
            failing.FailuresResponse,
            query=failures.FailuresQuery,
        )
    ),
    _shared(_get(f"{_WORKFLOW}/progress", _recall(progress.progress), monitoring.ProgressResponse)),
    _shared(
        _get(f"{_WORKFLOW}/explanation", _explain_workflow(explain.explain_workflow), monitoring.WorkflowExplanation),
        _TIMED_SECONDS,
    ),
    _shared(_get(f"{_WORKFLOW}/matrix", _read_large(matrix.matrix), monitoring.Matrix, query=matrix.MatrixQuery)),
    _shared(_get(f"{_WORKFLOW}/timeline", _timeline, times.Timeline, query=timeline.TimelineQuery), _TIMED_SECONDS),
    _shared(_get(f"{_WORKFLOW}/template_graph", _read_large(graphs.template_graph), drawn.TemplateGraph)),
    _shared(_get(f"{_WORKFLOW}/critical_path", _read_large(critical.critical_path), drawn.CriticalPath)),
    _shared(_get(f"{_TASK}/graph", _read(graphs.task_graph), drawn.TaskGraph, query=graphs.TaskGraphQuery)),
    _VIEW,
    _STREAM,
    _post(
        READ,
        "/task_template_versions/{task_template_version_id:id}/resource_usage",
        _read_large(usage.template_usage),
        monitoring.UsageRequest,
        monitoring.UsageResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/resource_usage",
        _read_large(usage.workflow_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _post(
        READ,
        "/tools/{tool_id:id}/resource_usage",
        _read_large(usage.tool_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _get(
        "/task_template_versions/{task_template_version_id:id}/history",
        _read_large(judging.template_history),
        sizing.HistoryResponse,
    ),
    _post(
        READ, f"{_WORKFLOW}/sizing", _read_large(judging.workflow_sizing), sizing.SizingRequest, sizing.SizingResponse
    ),
    _get(f"{_WORKFLOW}/export", _read_large(exporting.export_page), monitoring.ExportPage, query=exporting.ExportQuery),
    _get("/task_instances/{task_instance_id:id}/log_tail", _read(people.log_tail), monitoring.LogTail),
    _get(
        "/task_instances/{task_instance_id:id}/log", _read_files(logs.log_part), monitoring.LogPart, query=logs.LogQuery
    ),
    _get(
        "/task_instances/{task_instance_id:id}/log_search",
        _read_files(logs.log_matches),
        monitoring.LogMatches,
        query=logs.LogSearchQuery,
    ),
)

_CREDENTIALS: Final = (
    _post(WRITE, "/tokens", credentials.create_token, secret.TokenRequest, secret.TokenResponse),
    _get("/tokens", credentials.list_tokens, secret.TokensResponse, right=WRITE),
    _delete(WRITE, "/tokens/{token_id:id}", credentials.revoke_token),
    _post(WRITE, "/page/links", credentials.create_link, secret.LinkRequest, secret.LinkResponse),
    _delete(ADMINISTER, "/page/links", credentials.revoke_links),
    _post(WRITE, "/page/codes", credentials.create_code, None, secret.LinkResponse),
    _post(ENTER, "/page/session", credentials.open_page, None, secret.PageSession),
)

ENDPOINTS: Final = (
    *HOT,
    *_DEFINITIONS,
    *_BINDING,
    *_RUNS,
    *_VERSIONS,
    *_EXPANSIONS,
    *_STEERING,
    *_READING,
    *_CREDENTIALS,
)
