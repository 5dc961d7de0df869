"""The declared files of the tasks of a workflow, and how their attempts found them."""

from __future__ import annotations

from jobmon.core.wire import Message

#: Maximum number of tasks in one response.
FILES_TASKS_MAX = 1_000


class SeenFile(Message, frozen=True, kw_only=True):
    """How the newest attempt that found a file found it; see `launching.FoundFile`."""

    task_instance_id: int
    matches: int
    size_bytes: int
    modified: int


class DeclaredFile(Message, frozen=True, kw_only=True):
    """A file that a task reads or writes. `name`: as declared, or "". `found` None: no attempt has found it yet."""

    task_id: int
    task_name: str
    template: str
    status: str
    name: str
    path: str
    found: SeenFile | None = None


class DeclaredFiles(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/files?after=&count=&inputs=&template=&task_id=: of the next `count` tasks.

    Only tasks that declare files count. `inputs`: their inputs instead of their outputs. `folder`: the working folder
    of the workflow. `last_task`: where to resume; `is_last`: there are no more.
    """

    files: list[DeclaredFile]
    folder: str = ""
    last_task: int = 0
    is_last: bool = False
