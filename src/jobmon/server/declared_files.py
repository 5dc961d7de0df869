"""The files that templates declare: record the patterns, and give each attempt its paths.

Patterns are stored once per array; the paths of a task follow from its arguments. A hand-out of attempts whose arrays
declare nothing costs one query.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.agent.outcome import of_missing_input
from jobmon.agent.patterns import shown
from jobmon.core import files
from jobmon.core.exceptions import DuplicateOutputError
from jobmon.core.files import Declaration, Files, Pattern
from jobmon.core.wire.launching import LaunchFiles
from jobmon.server.command_room import CommandRoom
from jobmon.server.constructs import select, update
from jobmon.server.models import (
    argument,
    dag_node,
    node_arg,
    task,
    task_arg,
    task_array,
    task_template,
    task_template_version,
    template_files,
    upstream_set,
    upstream_set_member,
    workflow,
)
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.transaction import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select, Update

    from jobmon.core.wire.binding import ArraySpec, FilePattern
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

a, t, f, v = task_array.c, task.c, template_files.c, task_template_version.c


#: Name and arguments of a template version that does not exist.
_NO_ARGUMENTS: Final = ("", "[]", "[]", "[]")


class Declared(NamedTuple):
    """What an array declares. `folder`: the working folder of its workflow."""

    files: Declaration
    folder: str


# -- recording -----------------------------------------------------------------------------------------------------


@statement
def _arguments_of_versions() -> Select[Any]:
    return (
        select(v.id, task_template.c.name, v.node_args, v.task_args, v.op_args)
        .join_from(task_template_version, task_template, task_template.c.id == v.task_template_id)
        .where(any_of(v.id, "ids"))
    )


@statement
def _files_by_hash() -> Select[Any]:
    return select(f.hash, f.id).where(any_of(f.hash, "hashes"))


@statement
def _set_files() -> Update:
    return update(task_array).values(files_id=param("files")).where(a.id == param("id"))


def record(tx: Transaction, specs: Sequence[ArraySpec]) -> list[int | None]:
    """Record declared files; return the ID for each array, None if it declares none.

    Raises:
        InvalidValue: a pattern is invalid.
    """
    declaring = [spec for spec in specs if spec.inputs or spec.outputs]
    if not declaring:
        return [None] * len(specs)
    rows = tx.rows(_arguments_of_versions, ids={spec.task_template_version_id for spec in declaring})
    arguments = {row[0]: row[1:] for row in rows}
    contents: dict[int, str] = {}
    for at, spec in enumerate(specs):
        if spec.inputs or spec.outputs:
            arguments_of = arguments.get(spec.task_template_version_id, _NO_ARGUMENTS)
            contents[at] = to_json(_checked(spec, *arguments_of))
    hashes = {at: sha256(content.encode()).hexdigest() for at, content in contents.items()}
    new = {hashes[at]: content for at, content in contents.items()}
    tx.insert_many(template_files, ("hash", "content"), list(new.items()), ignore=True)
    ids = dict(tx.rows(_files_by_hash, hashes=list(new)))
    return [ids[hashes[at]] if at in hashes else None for at in range(len(specs))]


def _checked(spec: ArraySpec, name: str, node_args: str, task_args: str, op_args: str) -> dict[str, list[Pattern]]:
    data_args = [*json.loads(node_args), *json.loads(task_args)]
    given = {"inputs": spec.inputs, "outputs": spec.outputs}
    try:
        return {kind: _patterns(name, kind, one, data_args, json.loads(op_args)) for kind, one in given.items()}
    except ValueError as error:
        raise InvalidValue(str(error)) from None


def _patterns(
    name: str, kind: str, given: Sequence[FilePattern], data_args: Iterable[str], op_args: Iterable[str]
) -> list[Pattern]:
    files.checked_patterns(name, kind, [one.pattern for one in given], data_args, op_args)
    return [Pattern(one.name, one.pattern) for one in given]


def set_files(tx: Transaction, array_id: int, files_id: int | None) -> None:
    """Set which files an array declares."""
    tx.run(_set_files, files=files_id, id=array_id)


# -- reading -------------------------------------------------------------------------------------------------------


@statement
def _declared() -> Select[Any]:
    return (
        select(a.id, f.content, workflow.c.working_directory)
        .join_from(task_array, template_files, f.id == a.files_id)
        .join(workflow, workflow.c.id == a.workflow_id)
        .where(any_of(a.id, "ids"))
    )


def declared_of(session: Session, array_ids: Iterable[int]) -> dict[int, Declared]:
    """Return what arrays declare; those that declare nothing are left out."""
    return {
        array_id: Declared(_declaration(content), folder)
        for array_id, content, folder in session.rows(_declared, ids=sorted(set(array_ids)))
    }


def _declaration(content: str) -> Declaration:
    found = {kind: tuple(Pattern(*one) for one in patterns) for kind, patterns in json.loads(content).items()}
    return Declaration(**found)


@statement
def _node_args() -> Select[Any]:
    n = node_arg.c
    return (
        select(t.id, argument.c.name, n.value)
        .join_from(task, node_arg, n.node_id == t.node_id)
        .join(argument, argument.c.id == n.argument_id)
        .where(any_of(t.id, "ids"))
    )


@statement
def _task_args() -> Select[Any]:
    n = task_arg.c
    return (
        select(n.task_id, argument.c.name, n.value)
        .join_from(task_arg, argument, argument.c.id == n.argument_id)
        .where(any_of(n.task_id, "ids"))
    )


def paths_of(session: Session, tasks: Iterable[tuple[int, int]], declared: Mapping[int, Declared]) -> dict[int, Files]:
    """Return the paths of tasks by ID.

    Args:
        session: reads the arguments of the tasks.
        tasks: pairs of task and array; those whose array declares nothing are left out.
        declared: what their arrays declare.
    """
    declaring = {task_id: declared[array_id] for task_id, array_id in tasks if array_id in declared}
    if not declaring:
        return {}
    args: dict[int, dict[str, str]] = defaultdict(dict)
    for arguments in (_node_args, _task_args):
        for task_id, name, value in session.rows(arguments, ids=list(declaring)):
            args[task_id][name] = value
    found = {}
    for task_id, one in declaring.items():
        with suppress(ValueError, KeyError):  # clients check this; no other request may fail because of it
            found[task_id] = files.files_of(one.files, args[task_id], one.folder)
    return found


class FileHandout:
    """The declared files of attempts that are handed out in one answer.

    Args:
        session: reads what is declared.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._declared: dict[int, Declared | None] = {}
        #: The declared files by attempt; attempts without any are left out.
        self.of: dict[int, LaunchFiles] = {}

    def learn(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Read the declared files of attempts, given by the IDs of attempt, task and array."""
        attempts = [row for row in rows if row[0] not in self.of]
        if new := {array_id for _, _, array_id in attempts} - self._declared.keys():
            self._declared |= dict.fromkeys(new) | declared_of(self._session, new)
        declared = {array_id: one for array_id, one in self._declared.items() if one is not None}
        if declared:
            paths = paths_of(self._session, (row[1:] for row in attempts), declared)
            for attempt_id, task_id, _ in attempts:
                if (found := paths.get(task_id)) is not None:
                    self.of[attempt_id] = LaunchFiles(inputs=list(found.inputs), outputs=list(found.outputs))

    def handed_out(self, rows: Sequence[tuple[Any, ...]]) -> dict[int, LaunchFiles]:
        """Return the declared files of attempts whose columns begin with those that `learn` needs."""
        self.learn(row[:3] for row in rows)
        return {row[0]: self.of[row[0]] for row in rows if row[0] in self.of}

    def characters_of(self, attempt_id: int) -> int:
        """Return the number of characters that the declared files of an attempt add to the answer."""
        found = self.of.get(attempt_id)
        return 0 if found is None else sum(map(len, found.inputs)) + sum(map(len, found.outputs))


class AnswerRoom:
    """The space that is left for the commands and declared files of attempts in one answer.

    Args:
        files: their declared files.
    """

    def __init__(self, files: FileHandout) -> None:
        self._files = files
        self._room = CommandRoom()

    def admit(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the first attempts that fit, and reserve their space; see `CommandRoom.admit`.

        Args:
            rows: IDs of attempt, task and array, and the number of characters of the command.
        """
        self._files.learn(row[:3] for row in rows)
        return self._room.admit(rows, lambda row: row[3] + self._files.characters_of(row[0]))


# -- a missing input -----------------------------------------------------------------------------------------------

#: Maximum number of upstream tasks among which the writer of a missing file is looked for.
WRITERS_MAX: Final = 1_000
#: Maximum number of tasks that a message names.
WRITERS_NAMED_MAX: Final = 5


@statement
def _place() -> Select[Any]:
    w = workflow.c
    found = select(w.id, w.dag_id, w.working_directory, t.node_id).join_from(task, workflow, w.id == t.workflow_id)
    return found.where(t.id == param("task"))


@statement
def _upstream_tasks() -> Select[Any]:
    """Select the tasks directly upstream of a node whose arrays declare files.

    The conditions are nested subqueries: for a join SQLite might start with all tasks of the workflow.
    """
    n, s, m = dag_node.c, upstream_set.c, upstream_set_member.c
    sets = (
        select(n.upstream_set_id)
        .join_from(dag_node, upstream_set, s.id == n.upstream_set_id)
        .where(n.node_id == param("node"), s.dag_id == param("dag"))
    )
    nodes = select(m.node_id).where(m.upstream_set_id.in_(sets))
    return (
        select(t.id, t.array_id, t.name)
        .join_from(task, task_array, a.id == t.array_id)
        .where(t.workflow_id == param("workflow"), t.node_id.in_(nodes), unindexed(a.files_id).is_not(None))
        .order_by(unindexed(t.id))
        .limit(param("most"))
    )


def missing_input(session: Session, task_id: int, path: str) -> str:
    """Return the message on a missing input of a task: which task writes it, and what to do."""
    workflow_id, dag_id, folder, node_id = session.row(_place, task=task_id) or (0, 0, "", 0)
    rows = session.rows(_upstream_tasks, workflow=workflow_id, dag=dag_id, node=node_id, most=WRITERS_MAX)
    names = {row[0]: row[2] for row in rows}
    paths = paths_of(session, (row[:2] for row in rows), declared_of(session, (row[1] for row in rows)))
    ids, writing = list(paths), list[int]()
    with suppress(DuplicateOutputError):  # clients check this
        writers = files.Writers((paths[one].outputs for one in ids), str)
        writing = sorted(ids[at] for at in writers.of(path))
    problem = of_missing_input(shown(path, folder))[2]
    if not writing:
        return (
            f"{problem}; no task of the workflow writes it. Create it, then resume:"
            f" jobmon workflow resume -w {workflow_id}"
        )
    is_one = len(writing) == 1
    named = ", ".join(f"{names[one]} ({one})" for one in writing[:WRITERS_NAMED_MAX])
    more = f" and {len(writing) - WRITERS_NAMED_MAX:,} more" if len(writing) > WRITERS_NAMED_MAX else ""
    listed = " ".join(map(str, writing[:WRITERS_NAMED_MAX]))
    return (
        f"{problem}; {'task' if is_one else 'tasks'} {named}{more} {'writes' if is_one else 'write'} it: jobmon task"
        f" rerun {listed}"
    )
