"""Expansions: tasks whose Python function, called by the client that leads the run, adds tasks to the workflow.

A client calls the function of an expansion once all its upstream tasks are DONE or SKIPPED: `CallRequest` first, which
moves the expansion to RUNNING. What the function returns is recorded as a new version of the workflow, whose last part
moves the expansion to DONE (`changes.VersionRequest` with `expansion_id`). If the function fails: `CallFailedRequest`.
"""

from __future__ import annotations

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Text, Time

#: Maximum number of tasks in one response.
EXPANSIONS_PER_PAGE_MAX = 1_000
UPSTREAM_TASKS_MAX = 2_000
#: Maximum length of a recorded error; of a longer one, the end is recorded.
ERROR_CHARACTERS_MAX = 100_000


class CallRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/expansions/{task_id}/call: G -> R -> `CallResponse`.

    `seen`: the last stamp of the change feed that was processed; an expansion that has changed since is left unchanged.
    409 `StaleRun` as for `swarm.QueueRequest`. Idempotent.
    """

    seen: Time | None = None


class CallResponse(Message, frozen=True, kw_only=True):
    """The status of the expansion: RUNNING if its function may be called. `calls`: the number of calls so far."""

    status: str
    calls: int = 0


class CallFailedRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/expansions/{task_id}/failed: R -> F, or R -> G -> `CallResponse`.

    `error`: a message with the traceback. `is_final`: whether the function is not called again in this run.
    """

    error: Text
    is_final: bool = True


class ExpansionsPage(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/expansions?after=: the next expansions of a workflow by ID, as columns.

    `commands`: with the function (`core.expansions`). `added`: the number of tasks that each has added. `errors`: by
    position, why the newest call failed. Empty if there are no more.
    """

    task_ids: list[int]
    names: list[str]
    commands: list[str]
    statuses: list[str]
    added: list[int]
    errors: dict[int, str] = field(default_factory=dict)


class UpstreamTasks(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}/upstream_tasks?after=: the next upstream tasks of a task by ID, as columns.

    Expansions are left out: the tasks that they added are upstream tasks, too. `outputs`: paths of declared outputs;
    `attempts`: the newest attempt of each task, 0 if there is none; `stdout` and `stderr`: the paths of its output.
    """

    task_ids: list[Id]
    names: list[str]
    statuses: list[str]
    templates: list[str]
    node_args: list[dict[str, str]]
    outputs: list[dict[str, str]]
    attempts: list[int]
    stdout: list[str | None]
    stderr: list[str | None]
    is_last: bool = False
