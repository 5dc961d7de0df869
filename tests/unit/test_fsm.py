"""Named situations of the state machines; what holds for every state is in tests/property/test_fsm.py."""

from __future__ import annotations

import dataclasses

import pytest

from jobmon.core import fsm
from jobmon.core.constants import Actor, TaskInstanceStatus, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.fsm import Machine, Verdict


def verdict_on_attempt(source: TaskInstanceStatus, target: TaskInstanceStatus) -> Verdict:
    return fsm.judge(Machine.TASK_INSTANCE, source, target)


def test_worker_reports_done_while_triaging():
    assert verdict_on_attempt(TaskInstanceStatus.TRIAGING, TaskInstanceStatus.DONE) is Verdict.LEGAL


def test_running_overtakes_launched():
    assert verdict_on_attempt(TaskInstanceStatus.INSTANTIATED, TaskInstanceStatus.RUNNING) is Verdict.LEGAL
    assert verdict_on_attempt(TaskInstanceStatus.RUNNING, TaskInstanceStatus.LAUNCHED) is Verdict.LATE


def test_short_command_is_done_before_anybody_said_that_it_runs():
    assert verdict_on_attempt(TaskInstanceStatus.INSTANTIATED, TaskInstanceStatus.DONE) is Verdict.LEGAL


def test_submission_seemed_to_fail_but_the_job_lives():
    assert verdict_on_attempt(TaskInstanceStatus.RUNNING, TaskInstanceStatus.NO_DISTRIBUTOR_ID) is Verdict.LATE


def test_done_arrives_after_the_attempt_was_given_up():
    assert verdict_on_attempt(TaskInstanceStatus.UNKNOWN_ERROR, TaskInstanceStatus.DONE) is Verdict.LATE


def test_done_is_reported_twice():
    assert verdict_on_attempt(TaskInstanceStatus.DONE, TaskInstanceStatus.DONE) is Verdict.LATE


def test_nobody_can_have_run_what_was_never_handed_out():
    assert verdict_on_attempt(TaskInstanceStatus.QUEUED, TaskInstanceStatus.RUNNING) is Verdict.ILLEGAL


def test_nothing_goes_back_to_the_queue():
    assert verdict_on_attempt(TaskInstanceStatus.RUNNING, TaskInstanceStatus.QUEUED) is Verdict.ILLEGAL


def test_killed_attempt_that_ran_out_of_memory_ends_as_error():
    pair = (TaskInstanceStatus.KILL_SELF, TaskInstanceStatus.RESOURCE_ERROR)
    assert verdict_on_attempt(*pair) is Verdict.LEGAL
    assert fsm.effective_target(Machine.TASK_INSTANCE, *pair) == TaskInstanceStatus.ERROR


def test_attempt_that_finished_before_the_kill_is_done():
    pair = (TaskInstanceStatus.KILL_SELF, TaskInstanceStatus.DONE)
    assert verdict_on_attempt(*pair) is Verdict.LEGAL
    assert fsm.effective_target(Machine.TASK_INSTANCE, *pair) == TaskInstanceStatus.DONE


def test_redirects_are_for_attempts_only():
    assert fsm.effective_target(Machine.TASK, TaskStatus.RUNNING, TaskStatus.ERROR_FATAL) == TaskStatus.ERROR_FATAL


def test_new_run_gives_up_while_the_run_before_it_leads_the_workflow():
    assert fsm.judge(Machine.WORKFLOW, WorkflowStatus.RUNNING, WorkflowStatus.ABORTED) is Verdict.LATE
    assert fsm.judge(Machine.WORKFLOW, WorkflowStatus.FAILED, WorkflowStatus.ABORTED) is Verdict.LATE


def test_run_that_made_room_says_late_that_it_failed():
    pair = (WorkflowRunStatus.TERMINATED, WorkflowRunStatus.ERROR)
    assert fsm.judge(Machine.WORKFLOW_RUN, *pair) is Verdict.LATE


def test_letters_serve_as_well_as_states():
    assert fsm.judge(Machine.TASK, TaskStatus.DONE.value, TaskStatus.REGISTERING.value) is Verdict.LEGAL


def test_unknown_letter_is_refused():
    with pytest.raises(ValueError, match="is not a valid TaskStatus"):
        fsm.judge(Machine.TASK, "?", TaskStatus.DONE)


def test_a_letter_of_another_machine_is_refused():
    with pytest.raises(ValueError, match="is not a valid TaskStatus"):
        fsm.sources(Machine.TASK, WorkflowRunStatus.LINKING)


def test_the_guard_for_queueing_a_task():
    assert fsm.sources(Machine.TASK, TaskStatus.QUEUED) == {TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES}


def test_the_guard_for_launching_an_attempt():
    assert fsm.sources(Machine.TASK_INSTANCE, TaskInstanceStatus.INSTANTIATED) == {TaskInstanceStatus.QUEUED}


def test_only_a_user_or_a_new_version_makes_a_finished_task_run_again():
    edge = (TaskStatus.DONE, TaskStatus.REGISTERING)
    asked = {actor for actor in Actor if fsm.may_ask(Machine.TASK, *edge, actor)}
    assert asked == {Actor.USER, Actor.CLIENT}


def test_a_worker_may_not_triage():
    pair = (TaskInstanceStatus.RUNNING, TaskInstanceStatus.TRIAGING)
    assert not fsm.may_ask(Machine.TASK_INSTANCE, *pair, Actor.WORKER)
    assert fsm.may_ask(Machine.TASK_INSTANCE, *pair, Actor.REAPER)


def test_two_reasons_for_one_pair_are_one_edge_with_both():
    edge = fsm.table(Machine.TASK)[TaskStatus.ERROR_RECOVERABLE, TaskStatus.REGISTERING]
    assert edge.actors == {Actor.SERVER, Actor.USER}
    assert edge.why == "attempts remain, or the failure was not charged; a resume or reset will rerun it"


def test_the_tables_cannot_be_written():
    with pytest.raises(TypeError):
        fsm.table(Machine.TASK)[TaskStatus.DONE, TaskStatus.QUEUED] = None
    with pytest.raises(TypeError):
        fsm.TASK_OF_INSTANCE[TaskInstanceStatus.TRIAGING] = TaskStatus.RUNNING
    with pytest.raises(dataclasses.FrozenInstanceError):
        fsm.EDGES[Machine.TASK][0].reopens = True


@pytest.mark.parametrize(
    ("machine", "ends"), [(Machine.TASK, "DFSX"), (Machine.TASK_INSTANCE, "DEFUWXZ"), (Machine.WORKFLOW, "ADFH")]
)
def test_what_is_terminal(machine, ends):
    assert "".join(sorted(state for state in fsm.STATES[machine] if fsm.is_terminal(machine, state))) == ends
