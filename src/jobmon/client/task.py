"""A task: the intent to run one command. A value; kept small, for there may be a million of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.client import node
from jobmon.client.defaults import IteratorScale, checked_resources, checked_scales, first_max_attempts, merged
from jobmon.core.constants import DEFAULT_CLUSTER_NAME, TaskStatus
from jobmon.core.resources import Resources, normalized

if TYPE_CHECKING:
    from jobmon.client.array import Array
    from jobmon.client.defaults import HasDefaults
    from jobmon.client.task_resources import TaskResources
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.workflow import Workflow

NAME_CHARACTERS_MAX: Final = 250
#: Upstreams of a set of this size note those who follow them together: so that edges cost nothing one by one.
FOLLOWERS_NOTED_ONCE_FROM: Final = 8
_NAME_DIGEST_CHARACTERS: Final = 8
_NOT_IN_NAMES: Final = re.compile(r"[/\\'\"\s\x00-\x1f\x7f]")


def readable_name(parts: Iterable[str], digest: bytes) -> str:
    """Join parts to a valid name; one that is too long is cut and ends with some of the digest."""
    name = _NOT_IN_NAMES.sub("_", "_".join(parts))
    if name[0].isdigit():
        name = f"_{name}"
    if len(name) > NAME_CHARACTERS_MAX:
        ending = digest.hex()[:_NAME_DIGEST_CHARACTERS]
        name = f"{name[: NAME_CHARACTERS_MAX - _NAME_DIGEST_CHARACTERS - 1]}_{ending}"
    return name


class TaskOptions:
    """What a task says about how it is run; shared by all tasks that say the same."""

    __slots__ = (
        "cluster_name",
        "compute_resources",
        "compute_resources_callable",
        "fallback_queues",
        "max_attempts",
        "resource_scales",
    )

    def __init__(
        self,
        max_attempts: int | None = None,
        compute_resources: Resources | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        resource_scales: dict[str, Any] | None = None,
        cluster_name: str = "",
        fallback_queues: list[str] | None = None,
    ) -> None:
        self.max_attempts = max_attempts
        self.compute_resources = compute_resources
        self.compute_resources_callable = compute_resources_callable
        self.resource_scales = resource_scales
        self.cluster_name = cluster_name
        self.fallback_queues = fallback_queues

    def replaced(self, **changes: Any) -> TaskOptions:
        """Return a copy with changes, for one task."""
        return TaskOptions(**({name: getattr(self, name) for name in self.__slots__} | changes))


class Settled(NamedTuple):
    """What follows for a task from the defaults of all levels."""

    cluster_name: str
    max_attempts: int
    resource_scales: dict[str, Any]


class _Followers(NamedTuple):
    """Tasks with the same set of upstreams, made in a row."""

    upstreams: frozenset[Task]
    followers: list[Task]


class Task:
    """One command with its place in the DAG. Made by `TaskTemplate.create_task`."""

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
        self.command = template_version.command(args)
        node_values, task_values = template_version.values(args)
        self._identity = template_version.identity(node_values, task_values)
        self.values = node_values + task_values
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
        return int.from_bytes(self._identity[32:40], "big") >> 4

    def __eq__(self, other: object) -> bool:
        """Say whether it is this very task."""
        return self is other

    def __repr__(self) -> str:
        """Name the task."""
        return f"<Task {self.name} id={self.task_id}>"

    @property
    def node_digest(self) -> bytes:
        """SHA-256 of template and node args."""
        return self._identity[: node.DIGEST_BYTES]

    @property
    def task_digest(self) -> bytes:
        """SHA-256 of node and task args."""
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
        """The name given, or one made of the template's name and the node args."""
        return self._name or self._default_name()

    def _default_name(self) -> str:
        arguments = self.template_version.arguments.node_args
        parts = [self.template_version.name, *map("-".join, zip(arguments, self.values, strict=False))]
        return readable_name(parts, self.node_digest)

    @staticmethod
    def is_valid_job_name(name: str) -> bool:
        """Return True for a name that every cluster takes.

        Raises:
            ValueError: it is empty, too long, begins with a digit, or holds one of / \\ ' " or white space.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"A task's name must be a text that is not empty, not {name!r}.")
        if name[0].isdigit():
            raise ValueError(f"The task name {name!r} must not begin with a digit.")
        if found := _NOT_IN_NAMES.search(name):
            raise ValueError(f"The task name {name!r} must not contain {found[0]!r} (nor any of / \\ ' \" and space).")
        if len(name) > NAME_CHARACTERS_MAX:
            raise ValueError(f"The task name {name[:40]!r}... is longer than {NAME_CHARACTERS_MAX} characters.")
        return True

    # -- dependencies -------------------------------------------------------------------------------------------

    @property
    def upstream_tasks(self) -> frozenset[Task] | set[Task]:
        """Tasks that must be done before."""
        return self._upstreams if self._upstreams is not None else frozenset()

    @property
    def downstream_tasks(self) -> frozenset[Task]:
        """Tasks that wait for this one."""
        noted = self._downstreams or ()
        one_by_one = (one for one in noted if isinstance(one, Task))
        return frozenset(one_by_one).union(*(one.followers for one in noted if isinstance(one, _Followers)))

    def add_upstream(self, task: Task) -> None:
        """Let this task wait for another."""
        _check_task(task)
        self._check_open()
        if isinstance(self._upstreams, set):
            if task in self._upstreams:
                return
            self._upstreams.add(task)
        elif task in (self._upstreams or ()):
            return
        else:  # a frozenset is shared with other tasks
            self._upstreams = {*(self._upstreams or ()), task}
        task._note_downstream(self)

    def add_upstreams(self, tasks: Iterable[Task]) -> None:
        """Let this task wait for others."""
        for task in tasks:
            self.add_upstream(task)

    def add_downstream(self, task: Task) -> None:
        """Let another task wait for this one."""
        _check_task(task)
        task.add_upstream(self)

    def add_downstreams(self, tasks: Iterable[Task]) -> None:
        """Let others wait for this task."""
        for task in tasks:
            self.add_downstream(task)

    def _follow(self, upstreams: frozenset[Task]) -> None:
        """Be noted by the upstreams. A large set is noted once for all tasks that are made with it in a row."""
        if len(upstreams) < FOLLOWERS_NOTED_ONCE_FROM:
            for upstream in upstreams:
                upstream._note_downstream(self)
            return
        noted = next(iter(upstreams))._downstreams
        last = noted[-1] if noted else None
        if isinstance(last, _Followers) and last.upstreams is upstreams:
            last.followers.append(self)
            return
        followers = _Followers(upstreams, [self])
        for upstream in upstreams:
            upstream._note_downstream(followers)

    def _note_downstream(self, downstream: Task | _Followers) -> None:
        if self._downstreams is None:
            self._downstreams = [downstream]
        else:
            self._downstreams.append(downstream)

    def _check_open(self) -> None:
        if self.workflow is not None and self.workflow.is_bound:
            raise ValueError(f"Task {self.name!r} is recorded already; it cannot be changed any more.")

    # -- how it is run ------------------------------------------------------------------------------------------

    @property
    def workflow(self) -> Workflow | None:
        """The workflow that it was added to."""
        return self.array.workflow if self.array is not None else None

    def _levels(self) -> list[HasDefaults]:
        """Defaults from the strongest level to the weakest."""
        template = self.template_version.template
        workflow = self.workflow
        tool = template.tool_version.tool if workflow is None else workflow.tool
        return [template, tool] if workflow is None else [template, workflow, tool]

    def _settled(self) -> Settled:
        """Return what follows from all levels; kept once the workflow is recorded, for then nothing changes."""
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
        """The cluster on which it runs: Task > TaskTemplate > Workflow > Tool."""
        return self._settled().cluster_name

    @property
    def compute_resources(self) -> Resources:
        """Resources as asked for, all levels merged."""
        cluster = self.cluster_name
        levels = (level.resources_for(cluster) for level in reversed(self._levels()))
        return merged((*levels, self.options.compute_resources))

    def source_of(self, resource: str) -> str:
        """Return which level gives a resource or its scale as a default, in words; "" if the task itself does."""
        options = self.options
        if resource in {*(options.compute_resources or ()), *(options.resource_scales or ())}:
            return ""
        cluster = self.cluster_name
        return next(filter(None, (level.source_of(resource, cluster) for level in self._levels())), "")

    @property
    def requested_resources(self) -> Resources:
        """The request in normal form; once recorded: as checked against the queue."""
        if self.task_resources is not None:
            return dict(self.task_resources.requested_resources)
        return {
            key: value for key, value in normalized(self.compute_resources, allow_auto=True).items() if key != "queue"
        }

    @property
    def queue_name(self) -> str:
        """The queue asked for, "" for the cluster's default one; once recorded: the queue."""
        if self.task_resources is not None:
            return self.task_resources.queue.queue_name
        return str(self.compute_resources.get("queue") or "")

    @property
    def resource_scales(self) -> dict[str, Any]:
        """Scales by resource, all levels merged; none of them runs out."""
        return self._settled().resource_scales

    @property
    def max_attempts(self) -> int:
        """How many attempts it has: Task > TaskTemplate > Workflow > Tool > 3."""
        return self._settled().max_attempts

    @property
    def fallback_queues(self) -> list[str]:
        """Queues to be tried in order when a raised request no longer fits."""
        return list(self.options.fallback_queues or ())

    @property
    def compute_resources_callable(self) -> Callable[..., Any] | None:
        """Called once, when the task's upstreams are done; returns its resources."""
        return self.options.compute_resources_callable

    def update_compute_resources(self, **kwargs: Any) -> None:
        """Change some resources of this task and keep the others."""
        self._check_open()
        self.options = self.options.replaced(
            compute_resources=merged((self.options.compute_resources, checked_resources(kwargs)))
        )

    def update_resource_scales(self, **kwargs: Any) -> None:
        """Change some scales of this task and keep the others."""
        self._check_open()
        self.options = self.options.replaced(
            resource_scales=merged((self.options.resource_scales, checked_scales(kwargs)))
        )

    # -- attributes ---------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> dict[str, str]:
        """Names and values that are searchable and never passed to the job."""
        return dict(self._attributes or {})

    @property
    def has_attributes(self) -> bool:
        """Whether there are any."""
        return bool(self._attributes)

    def add_attribute(self, name: str, value: Any = "") -> None:
        """Add an attribute."""
        self._check_open()
        self._attributes = {**(self._attributes or {}), **checked_attributes({name: value})}

    # -- what became of it --------------------------------------------------------------------------------------

    @property
    def final_status(self) -> str | None:
        """Its status at the end of the last run of this workflow object, or None."""
        result = self.workflow.last_result if self.workflow is not None else None
        return result.task_final_statuses.get(self.task_id) if result is not None and self.task_id is not None else None

    def get_errors(self) -> list[dict[str, Any]]:
        """Return what went wrong in its attempts, newest first.

        Raises:
            ValueError: the task is not recorded yet.
        """
        from jobmon.client import records

        workflow, task_id = self._recorded()
        return records.task_errors(workflow.requester, task_id)

    def resource_usage(self) -> dict[str, Any] | None:
        """Return what its newest finished attempt used, or None.

        Raises:
            ValueError: the task is not recorded yet.
        """
        from jobmon.client import records

        workflow, task_id = self._recorded()
        return records.task_usage(workflow.requester, task_id)

    def _recorded(self) -> tuple[Workflow, int]:
        if self.workflow is None or self.task_id is None:
            raise ValueError(f"Task {self.name!r} is not recorded yet: add it to a workflow and bind() or run() that.")
        return self.workflow, self.task_id


def settled_scales(scales: Mapping[str, Any], max_attempts: int) -> dict[str, Any]:
    """Replace iterators by as many of their values as there are attempts."""
    return {
        key: scale.values(max_attempts) if isinstance(scale, IteratorScale) else scale for key, scale in scales.items()
    }


def _check_task(task: object) -> None:
    if not isinstance(task, Task):
        raise ValueError(f"A dependency must be a Task, not {task!r}.")


def checked_upstreams(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return upstream tasks as a tuple.

    Raises:
        ValueError: they are not a list of tasks.
    """
    if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise ValueError(f"upstream_tasks must be a list of tasks, not {tasks!r}.")
    listed = tuple(tasks)
    for task in listed:
        _check_task(task)
    return listed


def checked_attributes(
    attributes: Iterable[str] | Mapping[str, Any] | None, what: str = "attributes"
) -> dict[str, str]:
    """Return attributes as a dict of texts; a list gives names without values.

    Raises:
        ValueError: neither a list of names nor a dict.
    """
    if attributes is None:
        return {}
    if isinstance(attributes, str) or not isinstance(attributes, Iterable):
        raise ValueError(f"{what} must be a list of names or a dict, not {attributes!r}.")
    pairs = attributes.items() if isinstance(attributes, Mapping) else ((name, "") for name in attributes)
    result = {name: "" if value is None else str(value) for name, value in pairs}
    if not all(isinstance(name, str) and name for name in result):
        raise ValueError(f"{what} must have names that are texts, not {attributes!r}.")
    return result
