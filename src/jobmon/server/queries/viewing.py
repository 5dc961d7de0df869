"""Return everything that a live view of a workflow shows, from one snapshot, so that its parts are consistent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.wire.monitoring import WorkflowView
from jobmon.server.queries import explain, progress
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from jobmon.server.kept import Kept
    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session


def workflow_view(session: Session, workflow_id: int, now: explain.Now, recent: Recent, kept: Kept) -> WorkflowView:
    """Return the progress of a workflow, and why it does not progress; the session has read nothing yet.

    Raises:
        NotFound: the workflow does not exist.
    """
    with kept.blocked(workflow_id) as blocked:
        monotonic = kept.monotonic()
        return WorkflowView(
            snapshot=session.value(last_stamp),
            progress=progress.progress_with(session, workflow_id, recent, blocked, monotonic, may_search=False),
            explanation=explain.explain_workflow_with(session, workflow_id, now, blocked, monotonic),
        )
