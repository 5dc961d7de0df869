"""A distributor whose reports are rejected, or answered by another program, keeps running and loses no report."""

import asyncio
from pathlib import Path

import pytest

from jobmon.agent.settlement import PORTION_BYTES_MAX
from jobmon.core import wire
from jobmon.core.constants import LOG_TAIL_BYTES_MAX, Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.exceptions import InvalidRequest, InvalidResponse, StaleRun
from jobmon.core.wire.launching import ClusterInfo, Report, SyncResponse
from jobmon.distributor.service import Outcome
from jobmon.testing.gateways import FakeDistributorGateway

FIRST = 10**6


def answered(error, status, kind="", identity="fake"):
    """Return an error as the requester raises it."""
    named = {"kind": kind, "message": str(error), "details": {}, "server_identity": identity}
    error.answer = status, named if kind else None
    return error


class Gateway(FakeDistributorGateway):
    """Takes reports of attempts from FIRST on without knowing them; `objection(request)` may refuse a request."""

    def __init__(self, folder):
        super().__init__([ClusterInfo(cluster_id=1, name="backyard", plugin="backyard", connection={})], folder)
        self.objection = lambda request: None
        self.change = lambda response: response
        self.registration = lambda: None
        self.recorded = []
        self.sizes = []

    async def register(self, request):
        if self.registrations and (error := self.registration()) is not None:
            raise error
        return await super().register(request)

    async def sync(self, request):
        if request.reports:
            self.sizes.append(len(wire.encode(request.reports)))
            if (error := self.objection(request)) is not None:
                raise error
        ours = [one for one in request.reports if one.task_instance_id < FIRST]
        response = self.change(await super().sync(wire.replace(request, reports=ours)))
        if response.server_identity == "fake":
            self.recorded += [one for one in request.reports if one.task_instance_id >= FIRST]
        return response

    @property
    def ids(self):
        return sorted({one.task_instance_id - FIRST for one in self.recorded})


@pytest.fixture
async def running(start):
    gateway = Gateway(str(start.folder))
    async with start.running(gateway) as (service, task):
        await gateway.until(lambda: service._is_built)
        yield gateway, service, task


def say(service, count, tail="", status=TaskInstanceStatus.DONE):
    for number in range(count):
        service._state.say(Report(task_instance_id=FIRST + number, status=status, log_tail=tail or None))
    service._wake.set()


def aside(start):
    return sorted(path.name for path in Path(start.folder, "data", "reports", "1").glob("*"))


async def test_many_large_reports_travel_in_portions(running):
    gateway, service, _ = running
    say(service, 400, tail="\x1b" * LOG_TAIL_BYTES_MAX)  # six bytes each in JSON
    await gateway.until(lambda: len(gateway.ids) == 400)
    assert max(gateway.sizes) <= PORTION_BYTES_MAX + 1_000
    assert len(gateway.recorded) == 400


async def test_a_server_or_proxy_that_takes_less_gets_less(running):
    gateway, service, task = running

    def too_large(request):
        is_large = len(wire.encode(request.reports)) > 50_000
        return answered(InvalidResponse("<html>"), 413) if is_large else None

    gateway.objection = too_large
    say(service, 100, tail="x" * 10_000)
    await gateway.until(lambda: len(gateway.ids) == 100)
    assert all(one.log_tail for one in gateway.recorded)
    assert not task.done()


async def test_a_single_report_that_is_too_large_loses_its_log_tail(running):
    gateway, service, _ = running
    gateway.objection = lambda request: (
        answered(InvalidRequest("too large"), 413, "InvalidRequest")
        if any(one.log_tail for one in request.reports)
        else None
    )
    say(service, 3, tail="x")
    await gateway.until(lambda: len(gateway.ids) == 3)
    assert {one.log_tail for one in gateway.recorded} == {None}


async def test_a_faulty_report_is_set_aside_and_the_others_arrive(running, start, caplog):
    gateway, service, task = running
    gateway.objection = lambda request: (
        answered(InvalidRequest("status: no"), 422, "ValidationError")
        if any(one.task_instance_id == FIRST + 5 for one in request.reports)
        else None
    )
    say(service, 20)
    await gateway.until(lambda: len(gateway.ids) == 19)
    await gateway.until(lambda: not service._state.has_reports)
    assert 5 not in gateway.ids
    assert aside(start) == [f"{FIRST + 5}-fake.report.refused"]
    assert "status: no" in caplog.text
    assert not task.done()


@pytest.mark.parametrize(
    "error", [InvalidRequest("no"), answered(InvalidResponse("<html>"), 400)], ids=["no answer", "400"]
)
async def test_a_report_that_a_proxy_refuses_waits_behind_the_others(running, start, error):
    gateway, service, task = running
    is_refusing = True
    gateway.objection = lambda request: (
        error if is_refusing and any(one.task_instance_id == FIRST for one in request.reports) else None
    )
    say(service, 20)
    await gateway.until(lambda: len(gateway.ids) == 19)
    assert aside(start) == []
    is_refusing = False
    await gateway.until(lambda: len(gateway.ids) == 20)
    assert not task.done()


@pytest.mark.parametrize(
    "error",
    [
        *(answered(InvalidResponse("<html>"), status) for status in (401, 403, 404, 429, 502)),
        answered(InvalidRequest("no"), 401, "Unauthorized", ""),
        answered(InvalidRequest("no"), 409, "InvalidRequest"),
        InvalidResponse("junk"),
        answered(StaleRun("of another server"), 409, "StaleRun", "beef"),
    ],
    ids=lambda error: f"{type(error).__name__} {error.answer and error.answer[0]}",
)
async def test_what_settles_nothing_keeps_all_reports(running, start, error):
    gateway, service, task = running
    refusals = [error, error]
    gateway.objection = lambda request: refusals.pop() if refusals else None
    gateway.registration = lambda: refusals.pop() if refusals else None
    say(service, 5, tail="x")
    await gateway.until(lambda: len(gateway.ids) == 5)
    assert [one.log_tail for one in gateway.recorded] == ["x"] * 5
    assert (aside(start), refusals) == ([], [])
    assert not task.done()


@pytest.mark.parametrize("identity", ["", "beef"])
async def test_the_answer_of_another_server_settles_nothing(running, identity):
    gateway, service, task = running
    others = [SyncResponse(workflow_run_status="D", server_identity=identity, fenced=True)] * 3
    gateway.change = lambda response: others.pop() if others else response
    say(service, 5)
    await gateway.until(lambda: len(gateway.ids) == 5)
    assert not task.done()


async def test_the_identity_of_a_server_of_an_earlier_version_is_not_compared(start):
    gateway = Gateway(str(start.folder))
    register = gateway.register

    async def as_before(request):
        return wire.replace(await register(request), server_incarnation="")

    gateway.register = as_before
    gateway.change = lambda response: wire.replace(response, server_identity="", server_incarnation="")
    (identity,) = gateway.queue("true", resources={"refuse": True})
    async with start.running(gateway):
        await gateway.until_ended(identity)
    assert gateway.registrations == 1


async def test_an_attempt_that_is_over_needs_no_report(running, start):
    gateway, service, _ = running
    gateway.objection = lambda request: (
        answered(InvalidRequest("over"), 409, "AttemptOver")
        if any(one.task_instance_id == FIRST for one in request.reports)
        else None
    )
    say(service, 5)
    await gateway.until(lambda: len(gateway.ids) == 4)
    await gateway.until(lambda: not service._state.has_reports)
    assert aside(start) == []


async def test_an_unknown_attempt_is_reported_again_when_the_server_has_started_again(running, start):
    gateway, service, _ = running
    incarnation = "1"

    def changed(response):
        unknown = [FIRST] if incarnation == "1" and gateway.sizes and not gateway.recorded else []
        return wire.replace(response, server_incarnation=incarnation, unknown=unknown)

    gateway.change = changed
    say(service, 1)
    await gateway.until(lambda: aside(start) == [f"{FIRST}-fake.report.unknown-1"])
    gateway.recorded.clear()
    incarnation = "2"
    gateway.set_run_status(WorkflowRunStatus.RUNNING)  # some answer
    say(service, 0)
    gateway.queue("true", resources={"refuse": True})
    await gateway.until(lambda: gateway.ids == [0])
    await gateway.until(lambda: aside(start) == [])


async def test_a_lost_answer_loses_no_attempt(start):
    gateway = start.gateway()
    gateway.answers_to_lose = 1
    gateway.queue("true", "true")
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert gateway.registrations == 2
    assert {(one.status, one.cause) for one in endings} == {(TaskInstanceStatus.NO_DISTRIBUTOR_ID, Cause.WORKER_LOST)}
    assert gateway.illegal == []


async def test_one_that_another_replaces_leaves(running):
    gateway, _, task = running
    gateway.take_over()
    assert await asyncio.wait_for(task, 20) is Outcome.FENCED


async def test_clusters_whose_commands_agents_run_are_left_to_them(start):
    gateway = start.gateway()
    for number, name in enumerate(("multiprocess", "dummy"), 2):
        gateway._clusters.append(ClusterInfo(cluster_id=number, name=name, plugin=name, connection={}))
    (mine,) = gateway.queue("true", resources={"refuse": True})
    local, direct = (gateway.queue("true", cluster=name)[0] for name in ("multiprocess", "dummy"))
    async with start.running(gateway):
        await gateway.until_ended(mine)
    assert {gateway.attempts[one].status for one in (local, direct)} == {TaskInstanceStatus.QUEUED}


async def test_a_run_that_our_server_has_no_more_ends_the_distributor(running):
    gateway, service, task = running
    gateway.objection = lambda request: answered(InvalidRequest("no run"), 404, "NotFound")
    gateway.registration = lambda: answered(InvalidRequest("There is no workflow run 7."), 404, "NotFound")
    say(service, 1)
    assert await asyncio.wait_for(task, 20) is Outcome.FENCED
