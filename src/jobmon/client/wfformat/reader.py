"""Read a WfFormat 1.5 file as a checked `Recording`; every error names the field and the task.

The dependencies are the union of `parents`, `children` and the files: a task that reads a file depends on the only task
that produces it. File names are relative to the folder of the run, even if they were recorded as absolute.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobmon.client.wfformat.document import RecordedMachine, RecordedTask, Recording, RecordingError, category_of
from jobmon.client.wfformat.graph import find_cycle, topological_order

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Final = "1.5"
DOCUMENT_BYTES_MAX: Final = 1024 * 1024 * 1024
PATH_BYTES_MAX: Final = 1024
NAME_BYTES_MAX: Final = 250
_TASK_IN_PATH: Final = re.compile(r"\$\.workflow\.(specification|execution)\.tasks\[(\d+)\]\.?(.*)")
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")


# The document as written, with camelCase names. Fields that are not needed here are ignored.


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    sizeInBytes: int


@dataclass(frozen=True, slots=True)
class _Task:
    id: str
    name: str
    parents: list[str]
    children: list[str]
    inputFiles: list[str] = field(default_factory=list)
    outputFiles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Specification:
    tasks: list[_Task]
    files: list[_File] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Command:
    program: str | None = None


@dataclass(frozen=True, slots=True)
class _Executed:
    id: str
    runtimeInSeconds: float
    avgCPU: float | None = None
    command: _Command | None = None


@dataclass(frozen=True, slots=True)
class _Cpu:
    coreCount: int | None = None


@dataclass(frozen=True, slots=True)
class _Machine:
    nodeName: str
    cpu: _Cpu | None = None


@dataclass(frozen=True, slots=True)
class _Execution:
    tasks: list[_Executed]
    makespanInSeconds: float | None = None
    machines: list[_Machine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Workflow:
    specification: _Specification
    execution: _Execution


@dataclass(frozen=True, slots=True)
class _Document:
    name: str
    schemaVersion: str
    workflow: _Workflow
    description: str | None = None


def read_recording(path: str | Path) -> Recording:
    """Read and check a file.

    Args:
        path: path of the file.

    Raises:
        RecordingError: there is no such file, or it is not a WfFormat 1.5 document that can be run.
    """
    path = Path(path)
    if path.suffix == ".py":
        raise RecordingError(f"{path} is a Python script, not a recording; run it: python {path}")
    try:
        if path.stat().st_size > DOCUMENT_BYTES_MAX:
            raise RecordingError(f"{path} is larger than {DOCUMENT_BYTES_MAX} bytes.")
        content = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return parse_recording(content)
    except RecordingError as error:
        raise RecordingError(f"{path}: {error}") from error


def parse_recording(content: bytes) -> Recording:
    """Check the text of a document and convert it into a recording.

    Raises:
        RecordingError: the document is malformed; the message names the field and the task.
    """
    document = _decoded(content)
    specification, execution = document.workflow.specification, document.workflow.execution
    if not specification.tasks:
        raise RecordingError("workflow.specification.tasks is empty: there is nothing to run.")
    _check_unique("workflow.specification.tasks", (task.id for task in specification.tasks))
    _check_unique("workflow.specification.files", (file.id for file in specification.files))
    _check_unique("workflow.execution.tasks", (task.id for task in execution.tasks))
    for index, task in enumerate(specification.tasks):
        _check_identity(index, task)
    sizes = {file.id: max(0, file.sizeInBytes) for file in specification.files}
    _check_places(sizes)
    _check_files_known(specification.tasks, sizes)
    return Recording(
        name=document.name,
        description=document.description or "",
        tasks=_tasks(specification.tasks, execution.tasks),
        file_sizes=sizes,
        makespan_seconds=execution.makespanInSeconds,
        machines=tuple(
            RecordedMachine(name=m.nodeName, cores=m.cpu.coreCount if m.cpu else None) for m in execution.machines
        ),
    )


def place_of(file_id: str) -> str:
    """Return the path of a file, relative to the folder of the run."""
    return "/".join(part for part in file_id.split("/") if part not in ("", "."))


# --- decoding ---------------------------------------------------------------------------------------------------------


def _decoded(content: bytes) -> _Document:
    try:
        raw = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"this is not valid JSON: {error}") from error
    version = raw.get("schemaVersion") if isinstance(raw, dict) else None
    if isinstance(version, str) and version != SCHEMA_VERSION:
        raise RecordingError(f"schemaVersion is {version!r}; only WfFormat {SCHEMA_VERSION} is supported.")
    try:
        return msgspec.convert(raw, _Document)
    except UnicodeEncodeError as error:
        raise RecordingError(f"a name contains half of a surrogate pair: {error.object!r}") from error
    except msgspec.ValidationError as error:
        raise RecordingError(_named(str(error), raw)) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it contains {name}, which is not a number")


def _named(message: str, raw: Any) -> str:
    """Turn "Expected `float`, got `str` - at `$.workflow.execution.tasks[3].runtimeInSeconds`" into a sentence."""
    what, _, path = message.partition(" - at `")
    path = path.removesuffix("`")
    what = what[:1].lower() + what[1:]
    found = _TASK_IN_PATH.fullmatch(path)
    if found is None:
        return f"{path.removeprefix('$.').removeprefix('$') or 'the document'}: {what}."
    part, index, name = found[1], int(found[2]), found[3]
    entry = raw["workflow"][part]["tasks"][index]
    task_id = entry.get("id") if isinstance(entry, dict) else None
    task = f"task {task_id!r}" if isinstance(task_id, str) else "task without an ID"
    where = f"{task} (workflow.{part}.tasks[{index}])"
    return f"{where}, field {name}: {what}." if name else f"{where}: {what}."


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_unique(where: str, ids: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise RecordingError(f"{where}: the id {repeated[0]!r} occurs more than once.")


def _check_identity(index: int, task: _Task) -> None:
    if not task.id:
        raise RecordingError(f"workflow.specification.tasks[{index}], field id: is empty.")
    for name, value in (("id", task.id), ("name", task.name)):
        if _CONTROL_CHARACTER.search(value):
            raise RecordingError(f"task {task.id!r}, field {name}: contains a control character.")
    if not task.name:
        raise RecordingError(f"task {task.id!r}, field name: is empty.")


def _check_places(sizes: dict[str, int]) -> None:
    """Check that every file has its own path inside the folder of the run."""
    owners: dict[str, str] = {}
    for file_id in sizes:
        place = place_of(file_id)
        if problem := _problem_of_place(place):
            raise RecordingError(f"workflow.specification.files: the id {file_id!r} {problem}.")
        if place in owners:
            raise RecordingError(f"workflow.specification.files: {owners[place]!r} and {file_id!r} are the same file.")
        owners[place] = file_id
    for place, file_id in owners.items():
        parts = place.split("/")
        for depth in range(1, len(parts)):
            above = owners.get("/".join(parts[:depth]))
            if above is not None:
                raise RecordingError(
                    f"workflow.specification.files: {above!r} is both a file and the folder of {file_id!r}."
                )


def _problem_of_place(place: str) -> str | None:
    if not place:
        return "names no file"
    if ".." in place.split("/"):
        return "leads outside the folder of the run"
    if _CONTROL_CHARACTER.search(place):
        return "contains a control character"
    try:
        encoded = place.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    too_long = len(encoded) > PATH_BYTES_MAX or any(len(part) > NAME_BYTES_MAX for part in encoded.split(b"/"))
    return "is too long for a file name" if too_long else None


def _check_files_known(tasks: list[_Task], sizes: dict[str, int]) -> None:
    for task in tasks:
        for name, files in (("inputFiles", task.inputFiles), ("outputFiles", task.outputFiles)):
            for index, file_id in enumerate(files):
                if file_id not in sizes:
                    raise RecordingError(
                        f"task {task.id!r}, field {name}[{index}]: "
                        f"the file {file_id!r} is not in workflow.specification.files."
                    )


# --- tasks and dependencies -------------------------------------------------------------------------------------------


def _tasks(tasks: list[_Task], executed: list[_Executed]) -> tuple[RecordedTask, ...]:
    by_id = {task.id: task for task in tasks}
    runs = {run.id: run for run in executed}
    unknown = runs.keys() - by_id.keys()
    if unknown:
        raise RecordingError(f"workflow.execution.tasks: task {min(unknown)!r} is not in workflow.specification.tasks.")
    parents = _parents(by_id)
    cycle = find_cycle(parents)
    if cycle:
        raise RecordingError(f"the dependencies form a cycle: {' -> '.join([*cycle, cycle[0]])}.")
    return tuple(_task(by_id[task_id], runs.get(task_id), parents[task_id]) for task_id in topological_order(parents))


def _task(task: _Task, run: _Executed | None, parents: list[str]) -> RecordedTask:
    if run is None:
        raise RecordingError(
            f"task {task.id!r}: workflow.execution.tasks does not contain it, so its runtime is unknown."
        )
    for name, value in (("runtimeInSeconds", run.runtimeInSeconds), ("avgCPU", run.avgCPU)):
        if value is not None and not math.isfinite(value):
            raise RecordingError(f"task {task.id!r}, field {name}: the number is too large.")
    program = (run.command.program if run.command else None) or ""
    return RecordedTask(
        task_id=task.id,
        category=category_of(task.name, program),
        parents=tuple(parents),
        input_files=tuple(dict.fromkeys(task.inputFiles)),
        output_files=tuple(dict.fromkeys(task.outputFiles)),
        runtime_seconds=run.runtimeInSeconds,
        cpu_percent=run.avgCPU,
    )


def _parents(tasks: dict[str, _Task]) -> dict[str, list[str]]:
    """Return the union of `parents`, `children` and file dependencies: each parent once, in the recorded order."""
    parents: dict[str, dict[str, None]] = {task_id: {} for task_id in tasks}
    for task in tasks.values():
        for name, others in (("parents", task.parents), ("children", task.children)):
            for index, other in enumerate(others):
                if other not in tasks:
                    raise RecordingError(f"task {task.id!r}, field {name}[{index}]: there is no task {other!r}.")
        parents[task.id].update(dict.fromkeys(task.parents))
        for child in task.children:
            parents[child][task.id] = None
    makers = _sole_makers(tasks.values())
    for task in tasks.values():
        made_by = (makers.get(file_id, task.id) for file_id in task.inputFiles)
        parents[task.id].update({maker: None for maker in made_by if maker != task.id})
    return {task_id: list(above) for task_id, above in parents.items()}


def _sole_makers(tasks: Iterable[_Task]) -> dict[str, str]:
    """Return the producer of each file; with several producers, only recorded dependencies define the order."""
    makers: dict[str, set[str]] = {}
    for task in tasks:
        for file_id in task.outputFiles:
            makers.setdefault(file_id, set()).add(task.id)
    return {file_id: next(iter(owners)) for file_id, owners in makers.items() if len(owners) == 1}
