"""Why a workflow goes on though it was paused."""

from __future__ import annotations

from jobmon.core import reasons
from jobmon.core.constants import TaskStatus, WorkflowStatus

RUN = reasons.Run(
    workflow_id=7, workflow_status=WorkflowStatus.RUNNING.value, is_active=True, may_queue=True, place="here"
)


def _why(limit: int, template: int) -> list[reasons.Kind]:
    limits = reasons.Limits(workflow=limit, in_flight=3, template=template, template_name="nap", template_in_flight=3)
    counts = {TaskStatus.QUEUED.value: 2, TaskStatus.RUNNING.value: 1, TaskStatus.DONE.value: 4}
    found = reasons.Progress(counts=counts, blocked=0, run=RUN, limits=(limits,))
    return [because.kind for because in reasons.why_workflow(found)]


def test_a_paused_workflow_of_which_all_is_queued_says_so():
    assert _why(0, 9) == [reasons.Kind.WORKFLOW_PAUSED, reasons.Kind.RUNNING]
    assert _why(9, 0) == [reasons.Kind.TEMPLATE_PAUSED, reasons.Kind.RUNNING]


def test_a_limit_that_holds_nothing_back_is_not_named():
    assert _why(3, 3) == [reasons.Kind.RUNNING]
