"""Why a paused workflow still runs, and why tasks wait."""

from __future__ import annotations

import dataclasses

from jobmon.core import explain
from jobmon.core.constants import TaskInstanceStatus, TaskStatus, WorkflowStatus

RUN = explain.Run(
    workflow_id=7, workflow_status=WorkflowStatus.RUNNING.value, is_active=True, may_queue=True, place="here"
)


def _why(limit: int, template: int) -> list[explain.Kind]:
    limits = explain.Limits(workflow=limit, in_flight=3, template=template, template_name="nap", template_in_flight=3)
    counts = {TaskStatus.QUEUED.value: 2, TaskStatus.RUNNING.value: 1, TaskStatus.DONE.value: 4}
    found = explain.Progress(counts=counts, blocked=0, run=RUN, limits=(limits,))
    return [because.kind for because in explain.why_workflow(found)]


def test_a_paused_workflow_of_which_all_is_queued_says_so():
    assert _why(0, 9) == [explain.Kind.WORKFLOW_PAUSED, explain.Kind.RUNNING]
    assert _why(9, 0) == [explain.Kind.TEMPLATE_PAUSED, explain.Kind.RUNNING]


def test_a_limit_that_holds_nothing_back_is_not_named():
    assert _why(3, 3) == [explain.Kind.RUNNING]


PROBLEM = explain.LaunchProblem(
    cluster="slurm", text="no room.", tried_text="10:00 UTC", next_text="10:01 UTC", waiting=1
)


def _of_attempt(**newest) -> list[explain.Because]:
    attempt = explain.Newest(cluster="slurm", since_text="09:59 UTC", **newest)
    limits = explain.Limits(workflow=9, in_flight=1)
    status = TaskStatus.RUNNING if attempt.status == TaskInstanceStatus.RUNNING else TaskStatus.INSTANTIATING
    found = explain.Situation(
        task_id=1, status=status, num_attempts=0, max_attempts=1, run=RUN, limits=limits, newest=attempt
    )
    return explain.why(found)


def test_an_attempt_that_is_with_no_cluster_is_not_said_to_wait_there():
    taken = TaskInstanceStatus.INSTANTIATED
    (held_up,) = _of_attempt(status=taken, launch_problem=PROBLEM)
    assert held_up.kind is explain.Kind.NOT_LAUNCHED
    assert held_up.text == (
        "It could not be launched on cluster slurm yet, and is not charged: no room. The last try was at 10:00 UTC;"
        " the next is at 10:01 UTC."
    )
    (on_its_way,) = _of_attempt(status=taken, is_submitted=False)
    assert "is submitting it to cluster slurm" in on_its_way.text
    (there,) = _of_attempt(status=taken, distributor_id="5", launch_problem=PROBLEM)
    assert "and is waiting there" in there.text


def test_a_worker_that_waits_for_its_location_says_so():
    (waits,) = _of_attempt(status=TaskInstanceStatus.RUNNING, pending_reason=f"{explain.WORKER_WAITS}n1 yet: gone")
    assert (waits.kind, waits.text) == (explain.Kind.NOT_LAUNCHED, "Its command cannot be started on n1 yet: gone")
    (runs,) = _of_attempt(status=TaskInstanceStatus.RUNNING, pending_reason="Resources")
    assert runs.kind is explain.Kind.RUNNING


def test_counts_agree_with_nouns():
    counts = {TaskStatus.INSTANTIATING.value: 3}
    for waiting, words in ((1, "1 task waits to be"), (3, "3 tasks wait to be"), (0, "Cluster slurm: no room")):
        problem = dataclasses.replace(PROBLEM, waiting=waiting)
        found = explain.Progress(counts=counts, blocked=0, run=RUN, launch_problems=(problem,))
        assert any(because.text.startswith(words) for because in explain.why_workflow(found))


def test_a_task_is_counted_once():
    """Held tasks are not said to wait for anything else, and functions that are called are not running tasks."""
    counts = {TaskStatus.REGISTERING.value: 5, TaskStatus.RUNNING.value: 3}
    found = explain.Progress(counts=counts, blocked=0, run=RUN, held=4, held_back=3, calls=1)
    assert [because.text.partition(". ")[0].rstrip(".") for because in explain.why_workflow(found)] == [
        "The function of an expansion is being called",
        "2 tasks are running, 0 are queued or launched",
        "4 tasks are held",
        "2 tasks are waiting for dependencies or a free slot",
    ]


def test_nothing_else_is_said_of_a_workflow_of_which_only_a_function_runs():
    found = explain.Progress(counts={TaskStatus.RUNNING.value: 2}, blocked=0, run=RUN, calls=2)
    (only,) = explain.why_workflow(found)
    assert only.text == "The functions of 2 expansions are being called."
