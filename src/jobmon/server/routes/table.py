"""All routes, the hot ones first. All are under `/api/v1`; `core/wire` documents the messages."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.credentials import Right
from jobmon.core.wire import agents as serving
from jobmon.core.wire import binding as bind
from jobmon.core.wire import changes, definition, monitoring, run, sizing, steering
from jobmon.core.wire import credentials as secret
from jobmon.core.wire import expanding as growing
from jobmon.core.wire import failures as failing
from jobmon.core.wire import files as filing
from jobmon.core.wire import graph as drawn
from jobmon.core.wire import launching as hot
from jobmon.core.wire import login as entering
from jobmon.core.wire import server as about
from jobmon.core.wire import swarm as orchestrator
from jobmon.core.wire import timeline as times
from jobmon.core.wire import watching as looking
from jobmon.server import exposition
from jobmon.server.queries import (
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
)
from jobmon.server.queries import definition as described
from jobmon.server.queries import monitoring as people
from jobmon.server.queries import sizing as judging
from jobmon.server.queries import steering as planning
from jobmon.server.queries import swarm as reading
from jobmon.server.routes import agents as agent_polls
from jobmon.server.routes import credentials, handlers, login, polls, streaming, taking
from jobmon.server.routes.endpoint import Endpoint
from jobmon.server.usecases import (
    adjusting,
    attributes,
    binding,
    concurrency,
    definitions,
    editing,
    expanding,
    holding,
    prioritizing,
    reporting,
    resuming,
    runs,
    triaging,
    versions,
    watching,
)
from jobmon.server.usecases.steering import update_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.server.routes.handlers import Handler


OPEN: Final = Right.OPEN
ENTER: Final = Right.ENTER
READ: Final = Right.READ
AGENT: Final = Right.AGENT
STEER: Final = Right.STEER
WRITE: Final = Right.WRITE
ADMINISTER: Final = Right.ADMINISTER


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
        _get(path, handlers.glance(read), run.ConcurrencyResponse),
        Endpoint(
            right=STEER,
            method="PUT",
            path=path,
            handle=handlers.write(write),
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
        handlers.write_jointly(reporting.worker_reports),
        hot.WorkerReportRequest,
        hot.WorkerReportResponse,
    ),
    _post(AGENT, "/worker/take", taking.take, hot.WorkerTakeRequest, hot.WorkerTakeResponse),
    _post(
        AGENT, "/worker/start", handlers.write(reporting.worker_start), hot.WorkerStartRequest, hot.WorkerStartResponse
    ),
    _post(AGENT, "/agents/{agent_id:id}/sync", agent_polls.sync, serving.AgentSyncRequest, serving.AgentSyncResponse),
    _post(WRITE, f"{_RUN}/heartbeat", handlers.write(runs.heartbeat), run.HeartbeatRequest, run.RunStatusResponse),
)
_DEFINITIONS: Final = (
    _post(WRITE, "/tools", handlers.write(definitions.find_tool), definition.ToolRequest, definition.ToolResponse),
    _post(
        WRITE,
        "/tools/{tool_id:id}/versions",
        handlers.write(definitions.new_tool_version),
        None,
        definition.ToolResponse,
    ),
    _post(
        WRITE,
        "/tool_versions/{tool_version_id:id}/task_templates",
        handlers.write(definitions.find_templates),
        definition.TemplatesRequest,
        definition.TemplatesResponse,
    ),
    _get(
        "/tool_versions/{tool_version_id:id}/task_templates",
        handlers.glance(reading.templates),
        definition.ToolTemplatesResponse,
    ),
    _get(
        "/tool_versions/{tool_version_id:id}/task_templates/{name}/versions",
        handlers.glance(reading.template_versions),
        definition.TemplateVersionsResponse,
    ),
    _post(WRITE, "/clusters", handlers.set_cluster, definition.ClusterRequest, definition.Cluster),
    _get("/clusters", handlers.glance(reading.clusters), definition.ClustersResponse),
    _delete(ADMINISTER, "/clusters/{name}", handlers.write(definitions.remove_cluster)),
    _post(WRITE, "/clusters/{name}/watch", handlers.write(watching.watch), looking.WatchRequest, looking.WatchResponse),
    _post(WRITE, "/clusters/{name}/view", handlers.write(watching.view), looking.ViewRequest, looking.ViewResponse),
    _post(
        WRITE, "/task_resources", handlers.write(definitions.find_resources), bind.ResourcesRequest, bind.IdsResponse
    ),
)
_BINDING: Final = (
    _post(WRITE, "/workflows", handlers.write(binding.find_workflow), bind.WorkflowRequest, bind.WorkflowResponse),
    _post(WRITE, f"{_WORKFLOW}/arrays", handlers.write(binding.find_arrays), bind.ArraysRequest, bind.IdsResponse),
    _post(
        WRITE, f"{_WORKFLOW}/tasks", handlers.write_checked(binding.find_tasks), bind.TasksRequest, bind.TasksResponse
    ),
    _post(
        WRITE,
        f"{_WORKFLOW}/redefined_tasks",
        handlers.write(binding.redefine_tasks),
        bind.RedefineRequest,
        bind.TasksResponse,
    ),
    _post(WRITE, "/dags/{dag_id:id}/edges", handlers.write(binding.add_edges), bind.EdgesRequest, None),
    _post(WRITE, f"{_WORKFLOW}/bound", handlers.write(binding.finish_binding), None, bind.BoundResponse),
)
_RUNS: Final = (
    _post(WRITE, "/agents", handlers.register_agent, serving.AgentRequest, serving.AgentResponse),
    _post(WRITE, f"{_WORKFLOW}/runs", handlers.write(runs.create_run), run.RunRequest, run.RunResponse),
    _post(WRITE, f"{_RUN}/lead", handlers.write(runs.lead_run), run.LeadRequest, run.RunResponse),
    _get(_RUN, handlers.write(runs.find_run), run.RunResponse),
    _post(WRITE, f"{_RUN}/status", handlers.write(runs.set_run_status), run.RunStatusRequest, run.RunStatusResponse),
    _post(WRITE, f"{_RUN}/terminate_task_instances", handlers.write(resuming.terminate), None, run.TerminateResponse),
    _post(WRITE, f"{_RUN}/triage", handlers.write(triaging.triage), None, run.TriageResponse),
    _post(WRITE, f"{_RUN}/distributors", handlers.register, hot.DistributorRequest, hot.DistributorResponse),
    _get(f"{_WORKFLOW}/active_runs", handlers.write(resuming.active_runs_response), run.ActiveRunsResponse),
    _post(WRITE, f"{_WORKFLOW}/resume", handlers.write(resuming.resume), run.ResumeRequest, run.ResumeResponse),
    _get(f"{_WORKFLOW}/resume", handlers.write(resuming.resume_state), run.ResumeResponse),
    _post(
        STEER,
        f"{_WORKFLOW}/background_resume",
        handlers.resume_in_background,
        run.BackgroundResumeRequest,
        run.BackgroundResumeResponse,
    ),
    _post(STEER, f"{_WORKFLOW}/stop", handlers.write(resuming.stop), run.StopRequest, run.StopResponse),
    _post(WRITE, f"{_WORKFLOW}/force_cleanup", handlers.write(resuming.force_cleanup), None, run.ForceCleanupResponse),
    _post(WRITE, f"{_WORKFLOW}/reset_tasks", handlers.reset_tasks, run.ResetRequest, None),
    _post(
        WRITE, f"{_TASK}/attributes", handlers.write(attributes.add_task_attributes), run.TaskAttributesRequest, None
    ),
    *_limit(f"{_WORKFLOW}/concurrency", reading.workflow_limit, concurrency.limit_workflow),
    *_limit("/arrays/{array_id:id}/concurrency", reading.array_limit, concurrency.limit_array),
    *_limit(f"{_WORKFLOW}/arrays/{{name}}/concurrency", reading.named_array_limit, concurrency.limit_arrays_by_name),
)
_VERSION: Final = f"{_WORKFLOW}/versions/{{number:id}}"
_VERSIONS: Final = (
    _post(WRITE, f"{_WORKFLOW}/versions", handlers.start_version, changes.VersionRequest, changes.VersionResponse),
    _get(f"{_WORKFLOW}/versions", handlers.read(described.versions), changes.VersionsResponse),
    _get(f"{_WORKFLOW}/edited_tasks", handlers.read(edited.edits), changes.EditsResponse),
    _get(f"{_TASK}/revisions", handlers.read(edited.revisions), changes.RevisionsResponse),
    _post(WRITE, f"{_WORKFLOW}/complete_version", handlers.apply_version, None, changes.VersionResponse),
    _post(WRITE, f"{_WORKFLOW}/drop_version", handlers.write(versions.drop_version), changes.DropRequest, None),
    _post(WRITE, f"{_VERSION}/tasks", handlers.write(versions.stage_tasks), changes.StagedTasks, bind.TasksResponse),
    _post(
        WRITE, f"{_VERSION}/definitions", handlers.write(versions.stage_definitions), changes.StagedDefinitions, None
    ),
    _post(WRITE, f"{_VERSION}/upstreams", handlers.write(versions.stage_upstreams), changes.StagedUpstreams, None),
    _post(WRITE, f"{_VERSION}/statuses", handlers.write(versions.stage_statuses), changes.StagedStatuses, None),
    _post(WRITE, f"{_VERSION}/seal", handlers.seal_version, changes.SealRequest, changes.VersionResponse),
)
_EXPANSION: Final = f"{_RUN}/expansions/{{task_id:id}}"
_EXPANSIONS: Final = (
    _post(WRITE, f"{_EXPANSION}/call", handlers.write(expanding.call), growing.CallRequest, growing.CallResponse),
    _post(
        WRITE,
        f"{_EXPANSION}/failed",
        handlers.write(expanding.call_failed),
        growing.CallFailedRequest,
        growing.CallResponse,
    ),
    _get(
        f"{_WORKFLOW}/expansions",
        handlers.read(expansions.expansions_page),
        growing.ExpansionsPage,
        query=expansions.AfterQuery,
    ),
    _get(
        f"{_TASK}/upstream_tasks",
        handlers.read(expansions.upstream_tasks),
        growing.UpstreamTasks,
        query=expansions.AfterQuery,
    ),
)
_STEERING: Final = (
    _post(
        READ,
        f"{_WORKFLOW}/task_updates/plan",
        handlers.read(planning.plan_update),
        steering.TaskUpdatePlanRequest,
        steering.TaskUpdatePlan,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/task_sets/plan",
        handlers.read_large(task_sets.plan_set),
        steering.TaskSetRequest,
        steering.TaskSetPlan,
    ),
    _post(
        STEER,
        f"{_WORKFLOW}/task_updates",
        handlers.write(update_tasks),
        steering.TaskUpdateRequest,
        steering.TaskUpdateResponse,
    ),
    _post(STEER, f"{_WORKFLOW}/holds", handlers.write(holding.hold), steering.HoldRequest, steering.HoldResponse),
    _post(
        STEER,
        f"{_WORKFLOW}/priorities",
        handlers.write(prioritizing.set_priority),
        steering.PriorityRequest,
        steering.PriorityResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/edits/plan",
        handlers.read(planning.plan_edit),
        steering.EditPlanRequest,
        steering.EditPlan,
    ),
    _post(WRITE, f"{_WORKFLOW}/edits", handlers.write(editing.edit), steering.EditRequest, steering.EditResponse),
    _post(
        STEER,
        f"{_WORKFLOW}/adjustments",
        handlers.write(adjusting.adjust),
        steering.AdjustRequest,
        steering.EditResponse,
    ),
    _post(WRITE, f"{_WORKFLOW}/purge", handlers.purge, steering.PurgeRequest, steering.PurgeResponse),
    _get(
        f"{_WORKFLOW}/history", handlers.read(planning.history), steering.HistoryResponse, query=planning.HistoryQuery
    ),
)
_WORKFLOWS: Final = _shared(
    _get("/workflows", handlers.list_workflows, monitoring.WorkflowsResponse, query=people.WorkflowsQuery)
)
_VIEW: Final = _shared(_get(f"{_WORKFLOW}/view", handlers.show_view, monitoring.WorkflowView), _TIMED_SECONDS)
_TASKS: Final = _shared(
    _get(
        f"{_WORKFLOW}/task_summaries",
        handlers.read_kept(people.task_summaries, large=False),
        monitoring.TaskSummariesResponse,
        query=people.TasksQuery,
    )
)
_FAILURES: Final = _shared(
    _get(
        f"{_WORKFLOW}/failures",
        handlers.recall_kept(failures.workflow_failures, large=True),
        failing.FailuresResponse,
        query=failures.FailuresQuery,
    )
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
        "tasks": streaming.Part(
            endpoint=_TASKS,
            ids=lambda workflow_id: (workflow_id,),
            message=lambda workflow_id: people.TasksQuery(order="importance", limit=50, total=True),
            query_string=lambda workflow_id: b"order=importance&limit=50&total=true",
        ),
        "failures": streaming.Part(
            endpoint=_FAILURES,
            ids=lambda workflow_id: (workflow_id,),
            message=lambda workflow_id: failures.FailuresQuery(limit=10),
            query_string=lambda workflow_id: b"limit=10",
        ),
    },
)
_READING: Final = (
    _get("/time", handlers.tell_time, about.ServerTime),
    _post(ADMINISTER, "/database/compact", handlers.compact, about.CompactRequest, about.CompactResponse),
    _post(
        ADMINISTER, "/server/open_to_other_hosts", handlers.open_to_other_hosts, about.OpenRequest, about.ServerAddress
    ),
    _get("/health", handlers.tell_health, about.Health, right=OPEN),
    _get("/ready", handlers.tell_readiness, about.Health, right=OPEN),
    _get("/metrics", handlers.show_metrics, about.Metrics),
    Endpoint(
        right=READ,
        method="GET",
        path="/metrics",
        handle=handlers.expose_metrics,
        media_type=exposition.MEDIA_TYPE,
        root="",
    ),
    _get("/server/users", handlers.list_users, about.UsersResponse),
    _get(f"{_WORKFLOW}/metadata", handlers.glance(reading.metadata), orchestrator.WorkflowMetadata),
    _get(f"{_WORKFLOW}/arrays", handlers.glance(reading.arrays), orchestrator.ArraysResponse),
    _get(f"{_WORKFLOW}/tasks", handlers.read(reading.tasks_page), orchestrator.TasksPage, query=reading.PageQuery),
    _get(
        f"{_WORKFLOW}/recorded_tasks",
        handlers.read(recorded.recorded_tasks),
        bind.RecordedTasks,
        query=recorded.RecordedQuery,
    ),
    _get(
        "/recorded_workflow",
        handlers.find_recorded_workflow,
        changes.RecordedWorkflow,
        query=described.RecordedWorkflowQuery,
    ),
    _get(f"{_WORKFLOW}/recorded", handlers.glance(described.recorded_workflow_by_id), changes.RecordedWorkflow),
    _get(
        f"{_WORKFLOW}/definition",
        handlers.read(described.definition_page),
        changes.DefinitionPage,
        query=described.DefinitionQuery,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/upstreams",
        handlers.read(described.upstreams),
        changes.UpstreamsRequest,
        changes.UpstreamsResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/downstream",
        handlers.read(reading.downstream),
        orchestrator.DownstreamRequest,
        orchestrator.DownstreamResponse,
    ),
    _get(
        f"{_WORKFLOW}/errors",
        handlers.read(people.workflow_errors),
        orchestrator.ErrorsResponse,
        query=people.ErrorsQuery,
    ),
    _get(
        "/tasks/{task_id:id}/errors",
        handlers.read(people.task_errors),
        orchestrator.ErrorsResponse,
        query=people.ErrorsQuery,
    ),
    _WORKFLOWS,
    _TASKS,
    _shared(_get(_TASK, handlers.read(people.task_detail), monitoring.TaskDetail)),
    _shared(
        _get(f"{_TASK}/explanation", handlers.read_now(explain.explain_task), monitoring.TaskExplanation),
        _TIMED_SECONDS,
    ),
    _get(
        f"{_TASK}/dependencies",
        handlers.read(explain.dependencies),
        monitoring.DependenciesResponse,
        query=explain.DependenciesQuery,
    ),
    _get(
        f"{_WORKFLOW}/outputs",
        handlers.read_large(outputs.task_outputs),
        monitoring.OutputsResponse,
        query=outputs.OutputsQuery,
    ),
    _get(f"{_WORKFLOW}/files", handlers.read_large(files.declared_files), filing.DeclaredFiles, query=files.FilesQuery),
    _FAILURES,
    _shared(_get(f"{_WORKFLOW}/progress", handlers.recall_kept(progress.progress), monitoring.ProgressResponse)),
    _shared(
        _get(f"{_WORKFLOW}/explanation", handlers.explain_workflow, monitoring.WorkflowExplanation),
        _TIMED_SECONDS,
    ),
    _shared(
        _get(f"{_WORKFLOW}/matrix", handlers.read_kept(matrix.matrix), monitoring.Matrix, query=matrix.MatrixQuery)
    ),
    _shared(
        _get(f"{_WORKFLOW}/timeline", handlers.show_timeline, times.Timeline, query=timeline.TimelineQuery),
        _TIMED_SECONDS,
    ),
    _shared(_get(f"{_WORKFLOW}/template_graph", handlers.recall(graphs.template_graph), drawn.TemplateGraph)),
    _shared(_get(f"{_WORKFLOW}/critical_path", handlers.recall(critical.critical_path), drawn.CriticalPath)),
    _shared(_get(f"{_TASK}/graph", handlers.read(graphs.task_graph), drawn.TaskGraph, query=graphs.TaskGraphQuery)),
    _VIEW,
    _STREAM,
    _post(
        READ,
        "/task_template_versions/{task_template_version_id:id}/resource_usage",
        handlers.read_large(usage.template_usage),
        monitoring.UsageRequest,
        monitoring.UsageResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/resource_usage",
        handlers.read_large(usage.workflow_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _post(
        READ,
        "/tools/{tool_id:id}/resource_usage",
        handlers.read_large(usage.tool_usage),
        monitoring.UsageRequest,
        monitoring.TemplateUsages,
    ),
    _get(
        "/task_template_versions/{task_template_version_id:id}/history",
        handlers.read_large(judging.template_history),
        sizing.HistoryResponse,
    ),
    _post(
        READ,
        f"{_WORKFLOW}/sizing",
        handlers.recall_kept(judging.workflow_sizing, large=True),
        sizing.SizingRequest,
        sizing.SizingResponse,
    ),
    _get(
        f"{_WORKFLOW}/export",
        handlers.read_large(exporting.export_page),
        monitoring.ExportPage,
        query=exporting.ExportQuery,
    ),
    _get("/task_instances/{task_instance_id:id}/log_tail", handlers.read(people.log_tail), monitoring.LogTail),
    _get(
        "/task_instances/{task_instance_id:id}/log",
        handlers.read_files(logs.log_part),
        monitoring.LogPart,
        query=logs.LogQuery,
    ),
    _get(
        "/task_instances/{task_instance_id:id}/log_search",
        handlers.read_files(logs.log_matches),
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
    _post(ENTER, "/page/codes", credentials.create_code, None, secret.LinkResponse),
    _post(ENTER, "/page/session", credentials.open_page, None, secret.PageSession),
)

_LOGIN: Final = (
    _post(OPEN, "/login/start", login.start, entering.LoginRequest, entering.LoginStart),
    _post(OPEN, "/login/page", login.finish_at_page, entering.PageLogin, secret.PageSession),
    _post(OPEN, "/login/token", login.finish_with_token, entering.TokenLogin, secret.TokenResponse),
    _post(OPEN, "/login/device", login.start_device, None, entering.DeviceStart),
    _post(OPEN, "/login/device/token", login.finish_device, entering.DeviceLogin, entering.DeviceReply),
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
    *_LOGIN,
)
