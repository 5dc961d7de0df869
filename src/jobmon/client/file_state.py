"""Look for the declared files of recorded tasks: outputs that are missing, inputs that have changed. Read-only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobmon.agent import files as disk
from jobmon.client.file_edges import NO_FILES, files_of_task
from jobmon.client.task import Task
from jobmon.core.changes import CheckFiles
from jobmon.core.constants import TaskStatus
from jobmon.core.files import Files, Writers
from jobmon.core.wire.files import FILES_TASKS_MAX, DeclaredFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobmon.client.comparison import Comparison
    from jobmon.client.recorded import RecordedTask
    from jobmon.core.requester import Requester
    from jobmon.core.wire.changes import RecordedWorkflow

#: Number of matching files, size and time of modification; see `agent.files.Found`.
_Seen = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class FileState:
    """What is known of the files of recorded tasks, given by their positions in a comparison.

    Args:
        missing: tasks with missing outputs; for each of these outputs, the tasks that read it.
        changed: tasks with inputs that differ from what their attempts saw.
        details: a path for each of these tasks, for messages.
    """

    missing: Mapping[int, Sequence[Sequence[int]]] = field(default_factory=dict)
    changed: frozenset[int] = frozenset()
    details: Mapping[int, str] = field(default_factory=dict)


UNCHECKED = FileState()


def look(requester: Requester, compared: Comparison, found: RecordedWorkflow, check: CheckFiles) -> FileState:
    """Look for the files of all recorded tasks that have a result.

    Args:
        requester: sends the requests.
        compared: the definition whose files count, compared with the recorded one.
        found: the recorded workflow.
        check: which files to look for.

    Raises:
        DuplicateOutputError: two tasks declare the same output.
    """
    if check is CheckFiles.NONE:
        return UNCHECKED
    files = [_files_of(task, found.working_directory) for task in compared.tasks]
    with_result = [
        position for position, known in enumerate(compared.recorded) if known is not None and _has_result(known)
    ]
    lost = list(_missing((at, path) for at in with_result for path in files[at].outputs))
    missing = _with_readers(lost, files)
    details = dict(reversed(lost))
    changed: dict[int, str] = {}
    if check is CheckFiles.ALL:
        writers = Writers((each.outputs for each in files), lambda at: compared.tasks[at].name)
        external = {
            at: paths for at in with_result if (paths := [one for one in files[at].inputs if not writers.of(one)])
        }
        changed = dict(_changed(external, compared, _seen_inputs(requester, found) if external else {}))
    return FileState(missing, frozenset(changed), {**details, **changed})


def _has_result(known: RecordedTask) -> bool:
    return known.status == TaskStatus.DONE or (known.attempt is not None and known.attempt.is_success)


def _files_of(task: Task | RecordedTask, folder: str) -> Files:
    return files_of_task(task, folder) if isinstance(task, Task) else NO_FILES


def _missing(outputs: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the outputs that do not exist, after each of their folders was listed once."""
    lost = [(at, path) for at, path in outputs if disk.find([path], refreshes=False).missing]
    for folder in {os.path.dirname(path.rstrip("/")) for _, path in lost}:
        disk.refresh(folder)
    return (one for one in lost if disk.find([one[1]], refreshes=False).missing)


def _with_readers(lost: Sequence[tuple[int, str]], files: Sequence[Files]) -> dict[int, list[list[int]]]:
    """Return, for each task and each of its missing outputs, the tasks that read it; time is linear in the result."""
    if not lost:
        return {}
    readers: dict[str, list[int]] = defaultdict(list)
    for position, each in enumerate(files):
        for path in each.inputs:
            readers[path].append(position)
    of_output: list[list[int]] = [[] for _ in lost]
    writers = Writers(([path] for _, path in lost), lambda at: str(lost[at][0]))
    for path, positions in readers.items():
        for at in writers.of(path):
            of_output[at] += positions
    found: dict[int, list[list[int]]] = defaultdict(list)
    for (position, _), reading in zip(lost, of_output, strict=True):
        found[position].append([one for one in reading if one != position])
    return dict(found)


def _changed(
    external: Mapping[int, Sequence[str]], compared: Comparison, seen: Mapping[int, Mapping[str, _Seen]]
) -> Iterator[tuple[int, str]]:
    """Yield tasks with an input that exists and differs from what their newest attempt saw, with its path."""
    now: dict[str, _Seen | None] = {}
    for position, paths in external.items():
        known = compared.recorded[position]
        before = seen.get(known.task_id, {}) if known is not None else {}
        for path in paths:
            if path not in now:
                found = disk.find([path], refreshes=False).seen
                now[path] = found[0][1:] if found else None
            if path in before and now[path] not in (None, before[path]):
                yield position, path
                break


def _seen_inputs(requester: Requester, found: RecordedWorkflow) -> dict[int, dict[str, _Seen]]:
    """Return what the newest attempts saw of their inputs, by task and path."""
    seen: dict[int, dict[str, _Seen]] = {}
    after = 0
    while True:
        query = {"after": after, "count": FILES_TASKS_MAX, "inputs": True}
        page = requester.call(f"/workflows/{found.workflow_id}/files", query, DeclaredFiles, "get")
        for file in page.files:
            if file.found is not None:
                values = file.found.matches, file.found.size_bytes, file.found.modified
                seen.setdefault(file.task_id, {})[file.path] = values
        if page.is_last:
            return seen
        after = page.last_task
