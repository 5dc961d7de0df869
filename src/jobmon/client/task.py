"""A task: the intent to run one command. Kept small, because a workflow may have a million tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.client import node
from jobmon.client.defaults import checked_priority, checked_resources, checked_scales, first_max_attempts, merged
from jobmon.client.task_options import Settled, TaskOptions, settled_scales
from jobmon.client.values import stable_text
from jobmon.core.constants import ATTRIBUTES_MAX, DEFAULT_CLUSTER_NAME, TaskStatus
from jobmon.core.keywords import also_named
from jobmon.core.resources import Resources, normalized
from jobmon.core.texts import checked_name, checked_text

if TYPE_CHECKING:
    from jobmon.client.array import Array
    from jobmon.client.defaults import HasDefaults
    from jobmon.client.task_resources import TaskResources
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.workflow import Workflow

NAME_CHARACTERS_MAX: Final = 250
#: From this number of upstream tasks on, consecutive tasks that share the set are noted as a group, which makes
#: further edges nearly free.
FOLLOWERS_NOTED_ONCE_FROM: Final = 8
_NAME_DIGEST_CHARACTERS: Final = 8
_NOT_IN_NAMES: Final = re.compile(r"[/\\'\"\s\x00-\x1f\x7f\ud800-\udfff]")


def readable_name(parts: Iterable[str], digest: bytes, separator: str = "_") -> str:
    """Join parts to a valid name; a name that is too long is cut and ends with part of the digest."""
    name = _NOT_IN_NAMES.sub("_", separator.join(parts))
    if name[0].isdigit():
        name = f"_{name}"
    if len(name) > NAME_CHARACTERS_MAX:
        ending = digest.hex()[:_NAME_DIGEST_CHARACTERS]
        name = f"{name[: NAME_CHARACTERS_MAX - _NAME_DIGEST_CHARACTERS - 1]}_{ending}"
    return name


#: The workflow whose function is adding tasks in this context. They may depend on recorded tasks of it.
growing: Final[ContextVar[Workflow | None]] = ContextVar("growing", default=None)


class _Followers(NamedTuple):
    """Consecutively created tasks that share a set of upstream tasks."""

    upstreams: frozenset[Task]
    followers: list[Task]


class Task:
    """One command with its position in the DAG. Created by `TaskTemplate.create_task`."""

    __slots__ = (
        "_attributes",
        "_downstreams",
        "_identity",
        "_name",
        "_upstreams",
        "array",
        "command",
        "initial_status",
        "node_id",
        "options",
        "task_id",
        "task_resources",
        "template_version",
        "values",
    )

    def __init__(
        self,
        template_version: TaskTemplateVersion,
        args: Mapping[str, Any],
        name: str = "",
        upstream_tasks: frozenset[Task] | None = None,
        options: TaskOptions | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        if name:
            self.is_valid_job_name(name)
        self.template_version = template_version
        self.command, self.values, self._identity = template_version.fill(args)
        self.options = options or TaskOptions()
        self._name = name
        self._attributes = attributes
        self._upstreams: frozenset[Task] | set[Task] | None = upstream_tasks
        self._downstreams: list[Task | _Followers] | None = None
        self.array: Array | None = None
        self.task_id: int | None = None
        self.node_id: int | None = None
        self.initial_status: str = TaskStatus.REGISTERING
        self.task_resources: TaskResources | None = None
        if upstream_tasks:
            self._follow(upstream_tasks)

    # -- identity -----------------------------------------------------------------------------------------------

    def __hash__(self) -> int:
        """Return the first 60 bits of the task's identity."""
        return node.number(self._identity, node.DIGEST_BYTES)

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same task: equal template, node args and task args."""
        return self is other or (isinstance(other, Task) and self._identity == other._identity)

    def __repr__(self) -> str:
        """Return the type, name and ID of the task."""
        return f"<Task {self.name} id={self.task_id}>"

    @property
    def node_digest(self) -> bytes:
        """SHA-256 of the template and node args."""
        return self._identity[: node.DIGEST_BYTES]

    @property
    def task_digest(self) -> bytes:
        """SHA-256 of the node and task args."""
        return self._identity[node.DIGEST_BYTES :]

    @property
    def node_args(self) -> dict[str, str]:
        """Node args by name, as text."""
        return dict(zip(self.template_version.arguments.node_args, self.values, strict=False))

    @property
    def task_args(self) -> dict[str, str]:
        """Task args by name, as text."""
        arguments = self.template_version.arguments
        return dict(zip(arguments.task_args, self.values[len(arguments.node_args) :], strict=True))

    @property
    def name(self) -> str:
        """The given name, or one derived from the template's name and the node args."""
        return self._name or self._default_name()

    def _default_name(self) -> str:
        name = self.template_version.name_pattern % self.values[: len(self.template_version.arguments.node_args)]
        if len(name) > NAME_CHARACTERS_MAX or name[0].isdigit() or _NOT_IN_NAMES.search(name):
            return readable_name([name], self.node_digest)
        return name

    @staticmethod
    def is_valid_job_name(name: str) -> bool:
        """Return True if every cluster accepts the name.

        Args:
            name: the name to check, up to 250 characters.

        Raises:
            ValueError: it is empty, too long, begins with a digit, or contains / \\ ' " or white space.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"A task's name must be a non-empty string, not {name!r}.")
        if name[0].isdigit():
            raise ValueError(f"The task name {name!r} must not begin with a digit.")
        if found := _NOT_IN_NAMES.search(name):
            raise ValueError(
                f"The task name {name!r} must not contain {found[0]!r} (none of / \\ ' \" and space are allowed)."
            )
        if len(name) > NAME_CHARACTERS_MAX:
            raise ValueError(f"The task name {name[:40]!r}... is longer than {NAME_CHARACTERS_MAX} characters.")
        return True

    # -- dependencies -------------------------------------------------------------------------------------------

    @property
    def upstream_tasks(self) -> frozenset[Task] | set[Task]:
        """Tasks on which this one depends."""
        return self._upstreams if self._upstreams is not None else frozenset()

    @property
    def downstream_tasks(self) -> frozenset[Task]:
        """Tasks that depend on this one."""
        noted = self._downstreams or ()
        one_by_one = (one for one in noted if isinstance(one, Task))
        return frozenset(one_by_one).union(*(one.followers for one in noted if isinstance(one, _Followers)))

    def noted_downstreams(self, seen: set[int]) -> Iterator[Task]:
        """Yield the tasks that depend on this one.

        Args:
            seen: IDs of the groups that were already yielded for other tasks; this call adds to it. Tasks share groups,
                so a thousand tasks with the same thousand upstream tasks are yielded only once.
        """
        for noted in self._downstreams or ():
            if isinstance(noted, Task):
                yield noted
            elif id(noted) not in seen:
                seen.add(id(noted))
                yield from noted.followers

    @also_named(ancestor="task")
    def add_upstream(self, task: Task) -> None:
        """Make this task depend on another task.

        Args:
            task: must be done before this task starts. Adding it twice changes nothing.

        Raises:
            ValueError: the value is not a task, or one of the two tasks is already recorded.
        """
        _check_task(task)
        self._check_open()
        is_recorded = task._check_followable()
        if isinstance(self._upstreams, set):
            if task in self._upstreams:
                return
            self._upstreams.add(task)
        elif task in (self._upstreams or ()):
            return
        else:  # a frozenset is shared with other tasks
            self._upstreams = {*(self._upstreams or ()), task}
        if not is_recorded:
            task._note_downstream(self)

    def add_upstreams(self, tasks: Iterable[Task]) -> None:
        """Make this task depend on several other tasks; see `add_upstream`.

        Args:
            tasks: must be done before this task starts.

        Raises:
            ValueError: a value is not a task, or one of the tasks is already recorded.
        """
        for task in checked_upstreams(tasks, "The upstream tasks"):
            self.add_upstream(task)

    @also_named(descendent="task")
    def add_downstream(self, task: Task) -> None:
        """Make another task depend on this one.

        Args:
            task: starts only after this task is done.

        Raises:
            ValueError: the value is not a task, or one of the two tasks is already recorded.
        """
        _check_task(task)
        task.add_upstream(self)

    def add_downstreams(self, tasks: Iterable[Task]) -> None:
        """Make several other tasks depend on this one; see `add_downstream`.

        Args:
            tasks: start only after this task is done.

        Raises:
            ValueError: a value is not a task, or one of the tasks is already recorded.
        """
        for task in checked_upstreams(tasks, "The downstream tasks"):
            self.add_downstream(task)

    def _follow(self, upstreams: frozenset[Task]) -> None:
        """Register with the upstream tasks. A large set is noted once for all tasks created with it in a row.

        Raises:
            ValueError: an upstream task is already recorded.
        """
        if growing.get() is not None:
            upstreams = frozenset(upstream for upstream in upstreams if not upstream._check_followable())
        if len(upstreams) < FOLLOWERS_NOTED_ONCE_FROM:
            for upstream in upstreams:
                upstream._check_open()
            for upstream in upstreams:
                upstream._note_downstream(self)
            return
        noted = next(iter(upstreams))._downstreams
        last = noted[-1] if noted else None
        if isinstance(last, _Followers) and last.upstreams is upstreams:
            last.followers.append(self)
            return
        for upstream in upstreams:
            upstream._check_open()
        followers = _Followers(upstreams, [self])
        for upstream in upstreams:
            upstream._note_downstream(followers)

    def take_upstreams(self, upstreams: frozenset[Task], added: frozenset[Task]) -> None:
        """Replace the upstream tasks by a larger set, which other tasks may share.

        Args:
            upstreams: all upstream tasks.
            added: those that are new.
        """
        self._upstreams = upstreams
        self._follow(added)

    def withdraw(self) -> None:
        """Unregister from the upstream tasks: only for the task created last, which its caller never receives."""
        for upstream in self.upstream_tasks:
            noted = upstream._downstreams or []
            last = noted[-1] if noted else None
            ends = last.followers if isinstance(last, _Followers) else noted
            if ends and ends[-1] is self:
                ends.pop()

    def _note_downstream(self, downstream: Task | _Followers) -> None:
        if self._downstreams is None:
            self._downstreams = [downstream]
        else:
            self._downstreams.append(downstream)

    def _check_followable(self) -> bool:
        """Check that a new task may depend on this one; return whether this one is recorded."""
        workflow = self.workflow
        if workflow is not None and workflow is growing.get():
            return True
        self._check_open()
        return False

    def _check_open(self) -> None:
        if self.workflow is not None and self.workflow.is_bound:
            raise ValueError(f"Task {self.name!r} is already recorded and can no longer be changed.")

    @property
    def priority(self) -> int:
        """The priority, from -1000 to 1000: of the tasks that are ready, those of the highest priority run first.

        The default is 0. The priority of the template is added. Setting it also works while the workflow is running,
        also for attempts that have not started.

        Raises:
            ValueError: the new priority is not an integer from -1000 to 1000.
        """
        return self.options.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        checked = checked_priority(priority)
        if self.workflow is not None and self.workflow.is_bound:
            self.workflow.set_priority(checked, tasks=[self])
        self.options = self.options.with_priority(checked)

    def hold(self) -> None:
        """Hold the task: it is not launched until it is released, also while its workflow is running.

        An attempt that has not started is recalled and not charged; a running attempt finishes.

        Raises:
            ValueError: the workflow of the task is not recorded.
        """
        workflow, _ = self._recorded()
        workflow.hold(tasks=[self])

    def release(self) -> None:
        """Release the task; see `hold`.

        Raises:
            ValueError: the workflow of the task is not recorded.
        """
        workflow, _ = self._recorded()
        workflow.release(tasks=[self])

    def rerun(self, *, only: bool = False, command: str | None = None) -> int:
        """Request a rerun of the task and everything downstream, also while its workflow is running.

        Live attempts of these tasks are terminated and not charged. If the workflow is not running, the tasks are rerun
        at the next resume.

        Args:
            only: rerun only this task; the results of done tasks downstream are accepted.
            command: the command to run from now on, as with `edit`; None leaves it.

        Returns:
            The number of tasks to be rerun that would not have run otherwise.

        Raises:
            ValueError: the workflow of the task is not recorded.
        """
        workflow, _ = self._recorded()
        return workflow.rerun([self], only=only, command=command)

    def edit(
        self,
        command: str | None = None,
        compute_resources: Mapping[str, Any] | None = None,
        max_attempts: int | None = None,
        *,
        reset: bool = False,
    ) -> bool:
        """Edit what the next attempt of the task runs, also while its workflow is running.

        An attempt that has not started is recalled and not charged; a running attempt finishes. The script remains as
        it is; an edit is kept as long as the script's own value is unchanged.

        Args:
            command: the new command; None leaves it.
            compute_resources: resources to change, as in `create_task`, including "queue"; the others are kept.
            max_attempts: the new maximum number of attempts; None leaves it.
            reset: restore what the script defined, instead of changing anything.

        Returns:
            Whether the task has another definition now.

        Raises:
            ValueError: the workflow of the task is not recorded, or there is nothing to change.
            InvalidResources: no queue of its cluster can hold the request.
            InvalidRequest: the task is done or was removed, or somebody else changed it in the meantime.
        """
        workflow, _ = self._recorded()
        return bool(workflow.edit([self], command, compute_resources, max_attempts, reset=reset))

    def skip(self) -> None:
        """Skip the task: it is not run, and tasks downstream no longer wait for it. `rerun` runs it after all.

        Raises:
            ValueError: the workflow of the task is not recorded.
            InvalidRequest: the task is done, queued or running.
        """
        workflow, _ = self._recorded()
        workflow.skip([self])

    # -- options ------------------------------------------------------------------------------------------------

    @property
    def workflow(self) -> Workflow | None:
        """The workflow to which the task was added, or None."""
        return self.array.workflow if self.array is not None else None

    def _levels(self) -> list[HasDefaults]:
        """Return the levels that have defaults, strongest first."""
        template = self.template_version.template
        workflow = self.workflow
        tool = template.tool_version.tool if workflow is None else workflow.tool
        return [template, tool] if workflow is None else [template, workflow, tool]

    def _settled(self) -> Settled:
        """Return the options merged from all levels; cached once the workflow is recorded, as they no longer change."""
        workflow = self.workflow
        if workflow is None or not workflow.is_bound:
            return self._settle()
        key = (id(self.options), id(self.template_version.template))
        settled = workflow.settled.get(key)
        if settled is None:
            settled = workflow.settled[key] = self._settle()
        return settled

    def _settle(self) -> Settled:
        levels, options = self._levels(), self.options
        names = (options.cluster_name, *(level.default_cluster_name for level in levels))
        cluster = next(filter(None, names), DEFAULT_CLUSTER_NAME)
        attempts = first_max_attempts((options.max_attempts, *(level.default_max_attempts for level in levels)))
        scales = merged((*(level.scales_for(cluster) for level in reversed(levels)), options.resource_scales))
        return Settled(cluster, attempts, settled_scales(scales, attempts))

    @property
    def cluster_name(self) -> str:
        """The cluster on which the task runs. Precedence: Task > TaskTemplate > Workflow > Tool."""
        return self._settled().cluster_name

    @property
    def compute_resources(self) -> Resources:
        """The request: the defaults of all levels and the task's own values, merged key by key."""
        cluster = self.cluster_name
        levels = (level.resources_for(cluster) for level in reversed(self._levels()))
        return merged((*levels, self.options.compute_resources))

    def ignored_defaults(self) -> dict[str, frozenset[str]]:
        """Return clusters for which defaults are declared, but none of them for the cluster on which this task runs.

        Returns:
            The names of these clusters by kind, "resources" or "resource scales". A kind is missing if a level or the
            task itself declares values that apply to the task's cluster.
        """
        here, options = {"", self.cluster_name}, self.options
        own = (options.compute_resources or options.compute_resources_callable, options.resource_scales)
        declared = [level.declares_for() for level in self._levels()]
        found = {}
        for what, mine, sets in zip(("resources", "resource scales"), own, zip(*declared, strict=True), strict=True):
            clusters = frozenset[str]().union(*sets)
            if clusters and not mine and not clusters & here:
                found[what] = clusters
        return found

    def source_of(self, resource: str) -> str:
        """Return where the default for a resource or its scale was set, as text; "" if the task sets it itself.

        Args:
            resource: name of the resource.
        """
        options = self.options
        if resource in {*(options.compute_resources or ()), *(options.resource_scales or ())}:
            return ""
        cluster = self.cluster_name
        return next(filter(None, (level.source_of(resource, cluster) for level in self._levels())), "")

    @property
    def requested_resources(self) -> Resources:
        """The request in normalized form; once the task is recorded, as checked against the queue."""
        if self.task_resources is not None:
            return dict(self.task_resources.requested_resources)
        return {
            key: value for key, value in normalized(self.compute_resources, allow_auto=True).items() if key != "queue"
        }

    @property
    def queue_name(self) -> str:
        """The requested queue, or "" for the default of the cluster; once the task is recorded, the actual queue."""
        if self.task_resources is not None:
            return self.task_resources.queue.queue_name
        return str(self.compute_resources.get("queue") or "")

    @property
    def resource_scales(self) -> dict[str, Any]:
        """Scales by resource, merged from all levels. Iterators are replaced by lists of values."""
        return self._settled().resource_scales

    @property
    def max_attempts(self) -> int:
        """Maximum number of attempts. Precedence: Task > TaskTemplate > Workflow > Tool > 3."""
        return self._settled().max_attempts

    @property
    def fallback_queues(self) -> list[str]:
        """Queues to try, in this order, when a raised request no longer fits its queue."""
        return list(self.options.fallback_queues or ())

    @property
    def compute_resources_callable(self) -> Callable[..., Any] | None:
        """Called once, when the upstream tasks are done; returns the resources of the task."""
        return self.options.compute_resources_callable

    def update_compute_resources(self, **kwargs: Any) -> None:
        """Change some resources of this task and keep the others.

        Args:
            kwargs: resources by name, as in `compute_resources`.

        Raises:
            ValueError: a value is invalid, or the task is already recorded.
        """
        self._check_open()
        self.options = self.options.replaced(
            compute_resources=merged(
                (self.options.compute_resources, checked_resources(kwargs, cluster_name=self.cluster_name))
            )
        )

    def update_resource_scales(self, **kwargs: Any) -> None:
        """Change some resource scales of this task and keep the others.

        Args:
            kwargs: scales by name of the resource.

        Raises:
            ValueError: a value is not a scale, or the task is already recorded.
        """
        self._check_open()
        self.options = self.options.replaced(
            resource_scales=merged((self.options.resource_scales, checked_scales(kwargs)))
        )

    # -- attributes ---------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> dict[str, str]:
        """Names and values that are searchable and never passed to the command."""
        return dict(self._attributes or {})

    @property
    def has_attributes(self) -> bool:
        """Whether the task has attributes."""
        return bool(self._attributes)

    @also_named(attribute="name")
    def add_attribute(self, name: str, value: Any = "") -> None:
        """Add an attribute. Attributes are searchable and never passed to the command.

        Args:
            name: name of the attribute.
            value: its value; recorded as text.

        Raises:
            ValueError: the name or value cannot be recorded, or the task is already recorded.
        """
        self._check_open()
        self._attributes = checked_attributes({**(self._attributes or {}), name: value})

    # -- results ------------------------------------------------------------------------------------------------

    @property
    def final_status(self) -> str | None:
        """The status at the end of the last run of this workflow object, or None."""
        result = self.workflow.last_result if self.workflow is not None else None
        return result.task_final_statuses.get(self.task_id) if result is not None and self.task_id is not None else None

    def get_errors(self) -> dict[str, Any] | None:
        """Return the failed attempts of this task.

        Returns:
            None if no attempt failed. Otherwise a dict of `task_instance_id`, the ID of the newest failed attempt, and
            `error_log`, a list with one entry for each failed attempt, newest first. An entry has `error_time`
            (datetime), `description` and further keys such as `exit_code`, `host` and `recovered`, which is True if the
            task succeeded after the error.

        Raises:
            ValueError: the task is not recorded yet.
        """
        from jobmon.client import api_calls

        workflow, task_id = self._recorded()
        return api_calls.task_errors(workflow.requester, task_id)

    def resource_usage(self) -> dict[str, Any] | None:
        """Return the resource usage of the newest finished attempt of this task.

        Returns:
            None if no attempt finished. Otherwise a dict of `num_attempts`; `nodename`, the host; `runtime`, wall-clock
            seconds; `cpu`, CPU seconds; `memory`, the peak in bytes (an int); `read_bytes` and `written_bytes`. Values
            that were not measured are None.

        Raises:
            ValueError: the task is not recorded yet.
        """
        from jobmon.client import api_calls

        workflow, task_id = self._recorded()
        return api_calls.task_usage(workflow.requester, task_id)

    def _recorded(self) -> tuple[Workflow, int]:
        if self.workflow is None or self.task_id is None:
            raise ValueError(
                f"Task {self.name!r} is not recorded yet: add it to a workflow, and bind() or run() the workflow."
            )
        return self.workflow, self.task_id


def node_number(task: Task) -> int:
    """Return the first 60 bits of the node's identity."""
    return node.number(task._identity)


def with_upstreams(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks that depend on others."""
    return [task for task in tasks if task._upstreams]


def with_downstreams(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks on which others depend."""
    return [task for task in tasks if task._downstreams]


def _check_task(task: object) -> None:
    if not isinstance(task, Task):
        raise ValueError(f"A dependency must be a Task, not {task!r}.")


def checked_upstreams(tasks: Iterable[Task] | None, what: str = "upstream_tasks") -> tuple[Task, ...]:
    """Return upstream or downstream tasks as a tuple; None means no tasks.

    Raises:
        ValueError: the value is not a list of tasks.
    """
    if tasks is None:
        return ()
    if isinstance(tasks, Task | str) or not isinstance(tasks, Iterable):
        raise ValueError(f"{what} must be a list of tasks, not {tasks!r}.")
    listed = tuple(tasks)
    for task in listed:
        _check_task(task)
    return listed


def checked_attributes(
    attributes: Iterable[str] | Mapping[str, Any] | None, what: str = "attributes"
) -> dict[str, str]:
    """Return attributes as a dict of texts; a list gives names without values.

    Raises:
        ValueError: the value is neither a list of names nor a dict, or a value cannot be recorded as a stable text.
    """
    if attributes is None:
        return {}
    if isinstance(attributes, str) or not isinstance(attributes, Iterable):
        raise ValueError(f"{what} must be a list of names or a dict, not {attributes!r}.")
    pairs = attributes.items() if isinstance(attributes, Mapping) else ((name, "") for name in attributes)
    result = {
        name: "" if value is None else stable_text(value, partial("The attribute {1!r} in {0}".format, what, name))
        for name, value in pairs
    }
    if not all(isinstance(name, str) and name for name in result):
        raise ValueError(f"{what} must have strings as names, not {attributes!r}.")
    if len(result) > ATTRIBUTES_MAX:
        raise ValueError(f"{what} must be at most {ATTRIBUTES_MAX}, not {len(result)}.")
    return {
        checked_name(f"{what}: the name", name): checked_text(f"{what}: the value", text)
        for name, text in result.items()
    }
