"""Write a recorded workflow as a WfFormat 1.5 document: what ran, for how long, with how much memory, on which host.

Jobmon does not know which files commands read and write, so the dependencies are only in `parents` and `children`.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from jobmon.client.wfformat.reader import SCHEMA_VERSION
from jobmon.core.constants import TaskInstanceStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jobmon.core.wire.monitoring import AttemptDetail, ExportedTask, ExportPage, WorkflowSummary


def written_document(summary: WorkflowSummary, pages: Iterable[ExportPage]) -> dict[str, Any]:
    """Return the document. A task that was started is described by its last successful attempt, or its last attempt."""
    tasks: list[ExportedTask] = []
    sets: dict[int, list[int]] = {}
    for page in pages:
        tasks += page.tasks
        sets.update(page.sets)
    children: dict[int, list[int]] = defaultdict(list)
    parents = {task.task_id: _parents(task, sets) for task in tasks}
    for task_id, above in parents.items():
        for parent in above:
            children[parent].append(task_id)
    chosen = {task.task_id: attempt for task in tasks if (attempt := _chosen(task.attempts)) is not None}
    return {
        "name": summary.name or summary.tool_name,
        "description": f"Workflow {summary.workflow_id} of Jobmon, {summary.workflow_args}",
        "createdAt": summary.created_at.isoformat(),
        "schemaVersion": SCHEMA_VERSION,
        "workflow": {
            "specification": {
                "tasks": [
                    {
                        "name": task.template,
                        "id": str(task.task_id),
                        "parents": [str(one) for one in parents[task.task_id]],
                        "children": [str(one) for one in children[task.task_id]],
                        "inputFiles": [],
                        "outputFiles": [],
                    }
                    for task in tasks
                ],
                "files": [],
            },
            "execution": _execution(tasks, chosen, summary.created_at),
        },
    }


def _parents(task: ExportedTask, sets: dict[int, list[int]]) -> list[int]:
    return sorted({parent for number in task.upstream_sets for parent in sets.get(number, ())})


def _chosen(attempts: list[AttemptDetail]) -> AttemptDetail | None:
    begun = [one for one in attempts if one.started_at is not None]
    done = [one for one in begun if one.status == TaskInstanceStatus.DONE]
    return done[-1] if done else begun[-1] if begun else None


def _execution(tasks: list[ExportedTask], chosen: dict[int, AttemptDetail], created_at: datetime) -> dict[str, Any]:
    attempts = [one for task in tasks for one in task.attempts]
    starts = [one.started_at for one in attempts if one.started_at is not None]
    ends = [one.ended_at for one in attempts if one.ended_at is not None]
    makespan = (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0
    hosts = sorted({one.host for one in chosen.values() if one.host})
    return {
        "makespanInSeconds": max(0.0, makespan),
        "executedAt": min(starts, default=created_at).isoformat(),
        "tasks": [_executed(task, chosen.get(task.task_id)) for task in tasks],
        "machines": [{"nodeName": host} for host in hosts],
    }


def _executed(task: ExportedTask, attempt: AttemptDetail | None) -> dict[str, Any]:
    """Return how a task ran; a task that never ran has a runtime of 0."""
    program, *arguments = _words(task.command)
    found: dict[str, Any] = {
        "id": str(task.task_id),
        "runtimeInSeconds": 0.0,
        "command": {"program": program, "arguments": arguments},
    }
    if attempt is None:
        return found
    seconds = attempt.wallclock_seconds or 0.0
    found["runtimeInSeconds"] = seconds
    if attempt.started_at is not None:
        found["executedAt"] = attempt.started_at.isoformat()
    if attempt.cpu_seconds is not None and seconds > 0:
        found["avgCPU"] = 100 * attempt.cpu_seconds / seconds
    if attempt.max_rss_bytes is not None:
        found["memoryInBytes"] = attempt.max_rss_bytes
    if "cores" in attempt.requested_resources:
        found["coreCount"] = attempt.requested_resources["cores"]
    if attempt.host:
        found["machines"] = [attempt.host]
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command) or [command]
    except ValueError:
        return [command]
