"""Handlers of routes: each runs a use case or a query, or a few of them, for `routes.table`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from jobmon.core import wire
from jobmon.core.credentials import Agent, Owner, Part
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire import agents as serving
from jobmon.core.wire import changes, monitoring, run, steering
from jobmon.core.wire import launching as hot
from jobmon.core.wire import server as about
from jobmon.core.wire import timeline as times
from jobmon.core.wire.fields import INT64_MAX
from jobmon.server import exposition, retention, scope
from jobmon.server.database import meaning
from jobmon.server.migrations import upgrading
from jobmon.server.queries import activity, explain, progress, timeline, viewing
from jobmon.server.queries import definition as described
from jobmon.server.queries import monitoring as people
from jobmon.server.routes.endpoint import STRANGER, Call
from jobmon.server.times import to_microseconds
from jobmon.server.usecases import agents, compacting, definitions, launching, private_dag, resuming, versions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobmon.server.services import Services

    Handler = Callable[[Call], Awaitable[Any]]


def _arguments(call: Call) -> tuple[Any, ...]:
    return call.ids if call.message is None else (*call.ids, call.message)


def write(use_case: Callable[..., Any]) -> Handler:
    """Return a handler that runs a use case of the writer, with the IDs of the path and the message."""

    async def handle(call: Call) -> Any:
        return await call.write(use_case, *_arguments(call))

    return handle


def write_checked(use_case: Callable[..., Any]) -> Handler:
    """Return a handler that runs a use case of the writer that checks itself what its rows refer to."""

    async def handle(call: Call) -> Any:
        return await call.write(use_case, *_arguments(call), is_checked=True)

    return handle


def write_jointly(use_case: Callable[..., Any]) -> Handler:
    """Return a handler that runs a joint use case of the writer, which records nothing in the audit trail."""

    async def handle(call: Call) -> Any:
        return await call.services.writer.run_jointly(use_case, call.message)

    return handle


def read(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query of any size."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *_arguments(call))

    return handle


def read_large(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that may take seconds; other queries do not wait for it."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run_large(query, *_arguments(call))

    return handle


def read_kept(query: Callable[..., Any], *, large: bool = True) -> Handler:
    """Return a handler for a query that reads and updates what is kept of large workflows."""

    async def handle(call: Call) -> Any:
        read = call.services.readers.run_large if large else call.services.readers.run
        return await read(query, *_arguments(call), call.services.kept)

    return handle


def glance(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query of a few rows."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.glance(query, *_arguments(call))

    return handle


def read_files(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that reads output files."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run_large(query, *_arguments(call), call.services.output_files)

    return handle


def _now(services: Services) -> explain.Now:
    return explain.Now(time=to_microseconds(services.clock.now()), silence_seconds=services.settings.silence_seconds)


def read_now(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that needs the time."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run(query, *call.ids, _now(call.services))

    return handle


def recall(query: Callable[..., Any]) -> Handler:
    """Return a handler for a query that may take seconds, unless it can reuse what was computed recently."""

    async def handle(call: Call) -> Any:
        return await call.services.readers.run_large(query, *_arguments(call), call.services.recent)

    return handle


def recall_kept(query: Callable[..., Any], *, large: bool = False) -> Handler:
    """Return a handler for a query that reuses recent results, and reads and updates what is kept."""

    async def handle(call: Call) -> Any:
        services = call.services
        read = services.readers.run_large if large else services.readers.run
        return await read(query, *_arguments(call), services.recent, services.kept)

    return handle


async def show_view(call: Call) -> monitoring.WorkflowView:
    """Return what a live view of a workflow shows."""
    (workflow_id,), services = call.ids, call.services
    now, recent, kept = _now(services), services.recent, services.kept
    view: monitoring.WorkflowView = await services.readers.run(viewing.workflow_view, workflow_id, now, recent, kept)
    if not progress.has_searched(workflow_id, recent):
        services.warmer.start(workflow_id)
    return view


async def explain_workflow(call: Call) -> monitoring.WorkflowExplanation:
    """Return why a workflow does not progress."""
    services = call.services
    return await services.readers.run(explain.explain_workflow, *call.ids, _now(services), services.kept)


async def list_workflows(call: Call) -> monitoring.WorkflowsResponse:
    """List the workflows that the principal may read."""
    services = call.services
    readable = services.authority.readable_users(call.principal)
    return await services.readers.run(people.workflows, call.message, readable)


async def find_recorded_workflow(call: Call) -> changes.RecordedWorkflow:
    """Return a workflow by its arguments, if the principal may read it."""
    found = await call.services.readers.glance(described.recorded_workflow, call.message)
    if found.workflow_id is not None:
        await scope.require_readable(call.services, call.principal, found.workflow_id)
    return found


async def show_timeline(call: Call) -> times.Timeline:
    """Return the attempts of a workflow over time."""
    services = call.services
    now = to_microseconds(services.clock.now())
    return await services.readers.run_large(timeline.timeline, *call.ids, call.message, now, services.kept)


async def tell_health(call: Call) -> about.Health:
    """Return the health of the server; to a stranger only what a client needs to connect."""
    health = call.services.health
    if call.principal is not STRANGER:
        return health
    return about.Health(message_version=health.message_version, login=health.login)


async def tell_readiness(call: Call) -> about.Health:
    """Answer like `tell_health`, but only while the database responds."""
    await call.services.readers.run(activity.responds)
    return await tell_health(call)


async def show_metrics(call: Call) -> about.Metrics:
    """Return the metrics."""
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


async def expose_metrics(call: Call) -> str:
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


async def tell_time(call: Call) -> about.ServerTime:
    """Return the server's time."""
    return about.ServerTime(time=call.services.clock.now().isoformat())


async def list_users(call: Call) -> about.UsersResponse:
    """List the users with active runs that the principal may read."""
    services = call.services
    readable = services.authority.readable_users(call.principal)
    return await services.readers.run(activity.users, to_microseconds(services.clock.now()), readable)


async def open_to_other_hosts(call: Call) -> about.ServerAddress:
    """Open an embedded server to other hosts, for distributors whose jobs run there; a shared one is already open."""
    door = getattr(call.request.app.state, "open_to_other_hosts", None)
    if door is None:
        raise InvalidRequest("This server does not belong to a data folder; use the address in http.service_url.")
    addresses = await door(call.message.workflow_run_id)
    return about.ServerAddress(address=addresses[0], addresses=addresses)


async def register(call: Call) -> hot.DistributorResponse:
    """Register a distributor, and add the credential of the workers that it is going to start."""
    response: hot.DistributorResponse = await call.write(launching.register, *_arguments(call))
    return wire.replace(response, agent_token=call.services.authority.agent_token(Agent(response.workflow_id)))


async def register_agent(call: Call) -> serving.AgentResponse:
    """Register an agent with its own credential; after the agent is closed, that only reveals that it is over."""
    response: serving.AgentResponse = await call.write(agents.register, *_arguments(call))
    principal = Agent.of(Part.AGENT, response.workflow_id, response.agent_id)
    return wire.replace(response, token=call.services.authority.agent_token(principal))


async def set_cluster(call: Call) -> Any:
    """Set a cluster. Users may add what their runs need; only the owner changes what the jobs of all users start."""
    use_case = definitions.set_cluster if isinstance(call.principal, Owner) else definitions.add_to_cluster
    return await call.write(use_case, call.message)


async def start_version(call: Call) -> changes.VersionResponse:
    """Start a version of a workflow. Its DAG is made private in short transactions."""
    (workflow_id,) = call.ids
    await call.write(versions.start_version, workflow_id, call.message)
    while not await call.write(private_dag.make_dag_private, workflow_id):
        pass
    started: changes.VersionResponse = await call.write(versions.open_version, workflow_id)
    return started


async def seal_version(call: Call) -> changes.VersionResponse:
    """Seal a version and apply it."""
    workflow_id, number = call.ids
    await call.write(versions.seal, workflow_id, number, call.message)
    return await apply_version(call)


async def apply_version(call: Call) -> changes.VersionResponse:
    """Apply a sealed version, each part in its own transaction."""
    workflow_id, is_left, superseded = call.ids[0], True, []
    while is_left:
        is_left, replaced = await call.write(versions.apply_part, workflow_id)
        superseded += replaced
    present: changes.VersionResponse = await call.write(versions.present_version, workflow_id)
    return wire.replace(present, superseded=superseded)


async def resume_in_background(call: Call) -> run.BackgroundResumeResponse:
    """Start a run of a workflow on this machine."""
    (workflow_id,) = call.ids
    resumer = call.services.resumer
    if resumer is None:
        raise InvalidRequest(
            f"This server cannot start runs. Resume the workflow in a terminal: jobmon workflow resume {workflow_id}"
        )
    await call.write(resuming.order_resume, *_arguments(call))
    return await resumer.resume(workflow_id)


async def purge(call: Call) -> steering.PurgeResponse:
    """Delete tasks of a workflow, in short transactions."""
    (workflow_id,) = call.ids
    services = call.services
    count = await retention.purge(services.database, services.writer, call.write, workflow_id, call.message)
    return steering.PurgeResponse(tasks=count)


async def compact(call: Call) -> about.CompactResponse:
    """Compact the database while nothing else uses it."""
    services = call.services
    if not call.message.only_if_useful:
        await retention.delete_unused_nodes(services.database, services.writer, 0, INT64_MAX)
    is_anything_alive = partial(activity.is_anything_alive, now=to_microseconds(services.clock.now()))
    response = await services.writer.run_alone(
        compacting.compact, call.message, services.database.path, is_anything_alive
    )
    await call.write(compacting.record, response)
    return response


async def reset_tasks(call: Call) -> None:
    """Reset the tasks of a workflow, in short transactions."""
    (workflow_id,) = call.ids
    after_id: int | None = await call.write(resuming.start_reset, workflow_id, call.message)
    while after_id is not None:
        after_id = await call.write(resuming.reset_chunk, workflow_id, after_id, call.message)
