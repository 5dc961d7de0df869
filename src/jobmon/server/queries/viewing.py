"""Return everything that a live view of a workflow shows, from one snapshot, so that its parts are consistent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.wire.monitoring import WorkflowView
from jobmon.server.queries import explain, progress
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session


def workflow_view(session: Session, workflow_id: int, now: explain.Now, recent: Recent) -> WorkflowView:
    """Return the progress of a workflow, and why it does not progress.

    Raises:
        NotFound: there is no such workflow.
    """
    return WorkflowView(
        snapshot=session.value(last_stamp),
        progress=progress.progress(session, workflow_id, recent),
        explanation=explain.explain_workflow(session, workflow_id, now, recent),
    )
