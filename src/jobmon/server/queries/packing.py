"""What a packed job is told while its request is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.packing import Mode
from jobmon.core.wire.launching import WorkerTakeRequest, WorkerTakeResponse
from jobmon.server.packed import open_pilots, queued, to_kill
from jobmon.server.problems import NotFound
from jobmon.server.transitions import QUEUING_RUNS

if TYPE_CHECKING:
    from jobmon.server.sql import Session

_BATCH: Final = """
SELECT p.mode, p.size - p.taken, b.workflow_id, b.array_id, b.task_resources_id, j.ended_at
FROM batch b JOIN packed_batch p ON p.batch_id = b.id
LEFT JOIN packed_job j ON j.batch_id = b.id AND j.distributor_id = :job
WHERE b.workflow_id = (SELECT workflow_id FROM task_array WHERE id = :array) AND b.number = :number
"""


def workflow_of_array(session: Session, array_id: int) -> int:
    """Return the workflow of an array."""
    workflow_id = session.value("SELECT workflow_id FROM task_array WHERE id = :id", id=array_id)
    if workflow_id is None:
        raise NotFound.of("array", array_id)
    return int(workflow_id)


def news(session: Session, request: WorkerTakeRequest) -> WorkerTakeResponse:
    """Say what there is for a job to kill, whether there is work, and whether there will be any."""
    row = session.row(_BATCH, array=request.array_id, number=request.batch_number, job=request.distributor_id)
    if row is None:
        raise NotFound(f"There is no packed batch {request.batch_number} of array {request.array_id}.")
    mode, untaken, workflow_id, array_id, resources_id, ended_at = row
    if ended_at is not None:
        return WorkerTakeResponse(kill=list(request.alive), over=True)
    kill = to_kill(session, workflow_id, request.distributor_id, request.alive)
    if mode != Mode.PILOT:
        return WorkerTakeResponse(kill=kill, over=untaken <= 0, has_work=untaken > 0)
    run = session.row(
        "SELECT id, status FROM workflow_run WHERE workflow_id = :id ORDER BY id DESC LIMIT 1", id=workflow_id
    )
    may_queue = run is not None and run[1] in QUEUING_RUNS
    has_work = bool(open_pilots(session, workflow_id, array_id, resources_id)) or (
        may_queue and run is not None and bool(queued(session, run[0], array_id, resources_id, 1))
    )
    return WorkerTakeResponse(kill=kill, over=not (has_work or may_queue), has_work=has_work)
