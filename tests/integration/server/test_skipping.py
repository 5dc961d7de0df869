"""Skipping tasks: what is skipped satisfies its dependents, stays skipped, and is refused while it is in progress."""

import pytest
from agent_world import Agent, ids_of
from server_world import RUN, TI, Refused, report

from jobmon.core.constants import TaskStatus, WorkflowStatus
from jobmon.core.wire.monitoring import TaskExplanation, WorkflowExplanation, WorkflowsResponse
from jobmon.core.wire.run import ResetRequest
from jobmon.core.wire.steering import (
    HistoryResponse,
    TaskUpdatePlan,
    TaskUpdatePlanRequest,
    TaskUpdateRequest,
    TaskUpdateResponse,
)
from jobmon.core.wire.swarm import TasksPage

TASK = TaskStatus


async def update(bound, *task_ids, status=TASK.SKIPPED, user="me", force=True):
    request = TaskUpdateRequest(task_ids=list(task_ids), status=status, user=user, force=force)
    return await bound.world.post(f"/workflows/{bound.workflow_id}/task_updates", TaskUpdateResponse, request)


async def fail(run, task_id):
    """Let a task fail for good."""
    await run.queue([task_id])
    agent = await Agent.register(run)
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.RUNNING))
    await agent.sync(report(attempt, TI.ERROR_FATAL, exit_code=1))
    return agent


async def test_a_failed_task_is_skipped_and_the_run_completes(world):
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    first, second = bound.task_ids
    agent = await fail(run, first)
    before = (await bound.changes()).time
    assert (await update(bound, first)).changed == 1
    assert (await update(bound, first)).changed == 0
    assert (await bound.changes(since=before.isoformat())).tasks_by_status == {TASK.SKIPPED: [first]}
    assert await run.queue([second]) == {TASK.QUEUED: [second]}
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.DONE, exit_code=0))
    assert await run.move(RUN.DONE) == RUN.DONE
    summary = (await world.get("/workflows", WorkflowsResponse, workflow_id=bound.workflow_id)).workflows[0]
    assert (summary.status, summary.counts) == (WorkflowStatus.DONE, {TASK.SKIPPED: 1, TASK.DONE: 1})
    explained = await world.get(f"/tasks/{first}/explanation", TaskExplanation)
    assert explained.reasons[0].kind == "skipped"
    assert f"jobmon task rerun {first}" in explained.reasons[0].text
    whole = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert [reason.text for reason in whole.reasons] == ["1 task is done; 1 skipped."]
    entries = (await world.get(f"/workflows/{bound.workflow_id}/history", HistoryResponse)).entries
    assert [(one.action, one.details["tasks"]) for one in entries if one.action == "skip"] == [("skip", [first])]


async def test_what_is_done_queued_or_running_is_refused_and_nothing_is_changed(world):
    bound = await world.bound(3)
    run = await bound.start()
    done, running, waiting = bound.task_ids
    await run.queue([done, running])
    agent = await Agent.register(run)
    attempts = ids_of(await agent.sync(cores_free=2))
    with pytest.raises(Refused, match=f"Task {done} is queued or running"):
        await update(bound, waiting, done)
    await agent.sync(report(attempts[0], TI.DONE, exit_code=0), report(attempts[1], TI.RUNNING))
    with pytest.raises(Refused, match=f"Task {done} is done") as refused:
        await update(bound, waiting, done)
    assert refused.value.status == 409
    with pytest.raises(Refused, match=f"jobmon task hold {running}"):
        await update(bound, waiting, running)
    with pytest.raises(Refused, match="belongs to me"):
        await update(bound, waiting, user="somebody")
    assert (await bound.statuses())[waiting] == TASK.REGISTERING


async def test_every_report_on_a_skipped_task_is_late(world):
    bound = await world.bound(1)
    run = await bound.start()
    (task_id,) = bound.task_ids
    agent = await fail(run, task_id)
    await update(bound, task_id)
    attempt = world.rows("SELECT id FROM task_instance")[0][0]
    await agent.sync(report(attempt, TI.RUNNING), report(attempt, TI.DONE, exit_code=0))
    assert await bound.statuses() == {task_id: TASK.SKIPPED}


async def test_a_skipped_task_is_queued_by_nobody_and_stays_skipped_in_a_resume(world):
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    first, second = bound.task_ids
    await update(bound, first)
    assert await run.queue([first]) == {TASK.SKIPPED: [first]}
    await run.move(RUN.ERROR)
    await world.post(f"/workflows/{bound.workflow_id}/reset_tasks", None, ResetRequest())
    assert await bound.statuses() == {first: TASK.SKIPPED, second: TASK.REGISTERING}
    page = await world.get(f"/workflows/{bound.workflow_id}/tasks", TasksPage)
    assert page.task_ids == [second]
    await world.post(f"/workflows/{bound.workflow_id}/reset_tasks", None, ResetRequest(keep_done=False, user="me"))
    assert await bound.statuses() == {first: TASK.REGISTERING, second: TASK.REGISTERING}


async def test_a_workflow_whose_last_tasks_are_skipped_is_done_and_open_again_after_a_rerun(world):
    bound = await world.bound(2, edges={1: [0]})
    first, second = bound.task_ids
    assert (await update(bound, first, force=False)).workflow_status == WorkflowStatus.REGISTERING
    assert (await update(bound, second)).workflow_status == WorkflowStatus.DONE
    question = TaskUpdatePlanRequest(task_ids=[first], status=TASK.REGISTERING, recursive=True)
    plan = await world.post(f"/workflows/{bound.workflow_id}/task_updates/plan", TaskUpdatePlan, question)
    assert plan.task_ids == [first]  # what is downstream stays skipped
    assert (await update(bound, first, status=TASK.REGISTERING)).workflow_status == WorkflowStatus.REGISTERING
    assert await bound.statuses() == {first: TASK.REGISTERING, second: TASK.SKIPPED}


async def test_what_is_downstream_of_a_skipped_task_is_not_blocked_by_a_failure_above_it(world):
    bound = await world.bound(3, edges={1: [0], 2: [1]})
    run = await bound.start()
    first, second, third = bound.task_ids
    await fail(run, first)
    route = f"/workflows/{bound.workflow_id}/explanation"
    assert (await world.get(route, WorkflowExplanation)).blocked == 2
    await update(bound, second)
    assert (await world.get(route, WorkflowExplanation)).blocked == 0
    found = await world.get(f"/tasks/{third}/explanation", TaskExplanation)
    assert (found.unmet_count, found.fatal_count) == (0, 0)
    assert await run.queue([third]) == {TASK.QUEUED: [third]}
