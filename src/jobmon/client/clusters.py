"""The clusters and queues that the server knows, and checks of requests against them.

If the server does not know a cluster, but a plug-in of that name with default queues is installed here, the cluster is
recorded automatically. This is how a new server learns about `multiprocess`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jobmon.client.auto_resources import AutoRequests
from jobmon.client.defaults import name_hint
from jobmon.client.task_resources import TaskResources
from jobmon.core.constants import ResourceType
from jobmon.core.exceptions import InvalidResources, JobmonError, PluginError, ServerUnavailable
from jobmon.core.resources import UNITS, is_auto, normalized, problems_with_scales, unknown_keys
from jobmon.core.wire.definition import Cluster, ClusterRequest, ClustersResponse, QueueSpec
from jobmon.core.wire.launching import ClusterInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.client.task import Task
    from jobmon.core.cluster_protocol import ClusterQueue
    from jobmon.core.requester import Requester
    from jobmon.core.resources import Resources

logger = logging.getLogger(__name__)

PROBLEMS_LISTED_MAX: Final = 50
QUEUES_LISTED_MAX: Final = 10
_Source = tuple[int, int, str | None]


class KnownCluster:
    """A cluster with its queues as objects of its plug-in.

    Args:
        cluster: the recorded cluster.
        find_more: records a further queue, if the plug-in has one of that name, and returns the updated cluster.
    """

    def __init__(self, cluster: Cluster, find_more: Callable[[Cluster, str], Cluster | None]) -> None:
        self.name = cluster.name
        self.cluster_id = cluster.cluster_id
        self.queues: dict[str, ClusterQueue] = {}
        self._find_more = find_more
        self._take(cluster)

    def _take(self, cluster: Cluster) -> None:
        from jobmon.core.cluster import load_plugin

        queue_class = load_plugin(cluster.plugin).get_cluster_queue_class()
        self._cluster = cluster
        for queue in cluster.queues:
            made = queue_class(queue.queue_id, queue.queue_name, queue.parameters)
            self.queues.setdefault(queue.queue_name, made)

    def queue(self, name: str, what: str = "queue") -> ClusterQueue:
        """Return a queue; "" returns the default queue.

        Raises:
            InvalidResources: there is no queue of that name.
        """
        if not self.queues:
            raise InvalidResources(f"Cluster {self.name!r} has no queues.")
        if not name:
            return next(iter(self.queues.values()))
        if name not in self.queues and (more := self._find_more(self._cluster, name)) is not None:
            self._take(more)
        if name not in self.queues:
            raise InvalidResources(f"Cluster {self.name!r} has no {what} {name!r}{name_hint(name, self.queues)}")
        return self.queues[name]

    def lack_of_room(self, requested: Resources) -> str | None:
        """Return why no queue can hold a request, with the limits of each queue; None if a queue can."""
        if any(_holds(queue, requested) for queue in self.queues.values()):
            return None
        why = [
            f"queue {queue.queue_name!r}: {queue.validate_resources(strict=True, **requested)[1]}"
            for queue in list(self.queues.values())[:QUEUES_LISTED_MAX]
        ]
        more = len(self.queues) - len(why)
        return (
            f"no queue of cluster {self.name!r} can hold it: {'; '.join(why)}{f'; and {more} more' if more else ''}."
            " Request no more than one of them allows, or choose another cluster."
        )


def _holds(queue: ClusterQueue, requested: Resources) -> bool:
    """Return whether a queue grants at least what is requested; raising a request to a minimum is acceptable."""
    asked, given = normalized(requested), queue.coerce_resources(**requested)
    pairs = [(given.get(key, asked[key]), asked[key]) for key in UNITS if key in asked]
    return all(got == wanted or (not isinstance(wanted, str) and got >= wanted) for got, wanted in pairs)


class Clusters:
    """The clusters that a workflow uses."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._recorded: dict[str, Cluster] | None = None
        self._known: dict[str, KnownCluster] = {}

    @property
    def requester(self) -> Requester:
        """The object that sends requests to the server."""
        return self._requester

    def get(self, name: str) -> KnownCluster:
        """Return a cluster, recording it if a plug-in of that name is installed here.

        Raises:
            InvalidResources: there is no cluster of that name.
        """
        if name not in self._known:
            recorded = self._all()
            if name not in recorded:
                recorded[name] = self._record(name)
            self._known[name] = KnownCluster(recorded[name], self._find_more)
        return self._known[name]

    def knows(self, name: str, queue_name: str) -> bool:
        """Return whether `get` and its queue need no request."""
        return name in self._known and queue_name in self._known[name].queues

    def info(self, name: str) -> ClusterInfo:
        """Return what the processes that serve a cluster must know about it.

        Raises:
            InvalidResources: there is no cluster of that name.
        """
        self.get(name)
        found = self._all()[name]
        return ClusterInfo(cluster_id=found.cluster_id, name=name, plugin=found.plugin, connection=found.connection)

    def _find_more(self, cluster: Cluster, queue_name: str) -> Cluster | None:
        """Record a queue, or a group of queues, that the plug-in has by now; return None if it has none."""
        from jobmon.core.cluster import further_queue

        try:
            parameters = further_queue(cluster.plugin, queue_name)
        except PluginError as error:
            logger.warning("It is unknown whether cluster %r has a queue %r: %s", cluster.name, queue_name, error)
            return None
        if parameters is None:
            return None
        self._recorded = None  # another client may have recorded another queue
        now = self._all().get(cluster.name, cluster)
        queues = [QueueSpec(queue_name=one.queue_name, parameters=one.parameters) for one in now.queues]
        queues = [one for one in queues if one.queue_name != queue_name]
        request = ClusterRequest(
            name=now.name,
            plugin=now.plugin,
            queues=[*queues, QueueSpec(queue_name=queue_name, parameters=parameters)],
            connection=now.connection,
        )
        return self._requester.call("/clusters", request, Cluster)

    def _all(self) -> dict[str, Cluster]:
        if self._recorded is None:
            response = self._requester.call("/clusters", None, ClustersResponse, "get")
            self._recorded = {cluster.name: cluster for cluster in response.clusters}
        return self._recorded

    def _record(self, name: str) -> Cluster:
        queues = self._queues_of_plugin(name)
        logger.info("Recorded cluster %r with the queues that its plug-in found.", name)
        request = ClusterRequest(name=name, plugin=name, queues=queues)
        return self._requester.call("/clusters", request, Cluster)

    def _queues_of_plugin(self, name: str) -> list[QueueSpec]:
        from jobmon.core.cluster import default_queues, is_plugin, plugin_names

        if not is_plugin(name):
            raise InvalidResources(f"There is no cluster {name!r}{name_hint(name, {*self._all(), *plugin_names()})}")
        try:
            queues = default_queues(name)
        except PluginError as error:
            raise InvalidResources(f"Cluster {name!r} cannot be used: {error}") from error
        if not queues:
            raise InvalidResources(
                f"There is no cluster {name!r} yet, and its plug-in provides no queues: add it with"
                " 'jobmon cluster add'."
            )
        return [QueueSpec(queue_name=queue, parameters=dict(parameters)) for queue, parameters in queues]


class ResourceResolver:
    """Turns the resources of tasks into requests to queues; equal requests share one object."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        self._auto = AutoRequests(clusters.requester)
        self._by_source: dict[_Source, TaskResources] = {}
        #: The options and templates whose tasks all have the same request, and these requests.
        self._plain: set[tuple[int, int]] = set()
        self._of_plain: dict[tuple[int, int], TaskResources] = {}
        self._distinct: dict[TaskResources, TaskResources] = {}
        #: Sentences about requests that were adjusted to the limits of their queue.
        self.adjusted: list[str] = []

    def resolve(self, tasks: Iterable[Task]) -> None:
        """Set the checked request of every task.

        Raises:
            InvalidResources: clusters, queues or resources are unknown, values are invalid, or no queue can hold them.
                The message lists all problems, and the requests that would be adjusted to the limits of their queue.
        """
        problems: dict[_Source, str] = {}
        for task in tasks:
            resources = self._of_plain.get((id(task.options), id(task.template_version.template)))
            task.task_resources = self._request(task, problems) if resources is None else resources
        if problems:
            raise InvalidResources(_listed([*problems.values(), *self.adjusted]))

    def _request(self, task: Task, problems: dict[_Source, str]) -> TaskResources | None:
        """Return the checked request of a task; None if there is a problem with it, which is noted."""
        source = self._source(task)
        if source in problems:
            return None
        resources = self._by_source.get(source)
        if resources is None:
            try:
                resources = self._by_source[source] = self._resolved(task)
            except InvalidResources as error:
                problems[source] = str(error)
                return None
        if source[:2] in self._plain:
            self._of_plain[source[:2]] = resources
        return resources

    def _source(self, task: Task) -> _Source:
        """Return what determines a task's request: its options, its template, and for "auto" possibly an argument."""
        source = (id(task.options), id(task.template_version.template))
        if source in self._plain:
            return (*source, None)
        if not any(is_auto(value) for value in task.compute_resources.values()):
            self._plain.add(source)
            return (*source, None)
        return (*source, self._auto.kind_of(task))

    @property
    def distinct(self) -> list[TaskResources]:
        """All distinct requests."""
        return list(self._distinct)

    def _resolved(self, task: Task) -> TaskResources:
        try:
            resources = self._checked(task)
        except ServerUnavailable:
            raise  # not caused by the request
        except JobmonError as error:
            raise InvalidResources(f"Resources of task {task.name!r}: {error}{_given_by(task, str(error))}") from error
        return self._distinct.setdefault(resources, resources)

    def _checked(self, task: Task) -> TaskResources:
        self._warn_of_other_clusters(task)
        cluster = self._clusters.get(task.cluster_name)
        asked = task.compute_resources
        queue, problems = _queue_of(cluster, str(asked.pop("queue", None) or ""), task.fallback_queues)
        requested = self._auto.resolved(task, asked)
        is_known = task.compute_resources_callable is None
        if queue is not None:
            problems += _problems_with_scales(task, queue, requested)
            problems += self._problems_with_values(task, cluster, queue, requested) if is_known else []
        if queue is None or problems:
            raise InvalidResources("; ".join(problems))
        coerced = queue.coerce_resources(**requested)
        coerced.pop("queue", None)
        original = normalized(asked, allow_auto=True) if is_known else {}
        return TaskResources(coerced, queue, cluster.name, cluster.cluster_id, ResourceType.VALIDATED, original)

    def _warn_of_other_clusters(self, task: Task) -> None:
        """Warn, once per workflow and pair of clusters, about defaults that do not apply to the cluster of a task."""
        warned: set[str] = set() if task.workflow is None else task.workflow.warned
        for what, others in task.ignored_defaults().items():
            listed = " and ".join(map(repr, sorted(others)))
            clusters = "cluster" if len(others) == 1 else "clusters"
            key = f"{what} {listed} {task.cluster_name}"
            if key not in warned:
                warned.add(key)
                logger.warning(
                    "Task %r runs on cluster %r, but default %s are declared only for %s %s: they are ignored. Choose"
                    " that cluster with set_default_cluster_name(), or declare them for %r.",
                    task.name,
                    task.cluster_name,
                    what,
                    clusters,
                    listed,
                    task.cluster_name,
                )

    def _problems_with_values(
        self, task: Task, cluster: KnownCluster, queue: ClusterQueue, requested: Resources
    ) -> list[str]:
        """Return problems that cannot be fixed; note values that are adjusted to the limits of the queue."""
        valid, problems = queue.validate_resources(strict=False, **requested)
        if not valid:
            return [f"{problems} (queue {queue.queue_name!r} of cluster {cluster.name!r})"]
        fits, problems = queue.validate_resources(strict=True, **requested)
        if fits:
            return []
        by_user = {key: value for key, value in requested.items() if not is_auto(task.compute_resources.get(key))}
        if lack := cluster.lack_of_room(by_user):
            return [lack]
        where = f"Task {task.name!r} on queue {queue.queue_name!r} of {cluster.name!r}"
        moved = _moved(requested, queue.coerce_resources(**requested))
        self.adjusted.append(f"{where}: {problems}; it gets {moved}{_hint(cluster, requested)}")
        return []


def _queue_of(cluster: KnownCluster, name: str, fallbacks: Iterable[str]) -> tuple[ClusterQueue | None, list[str]]:
    """Return the queue, and problems with the names of queues."""
    problems: list[str] = []
    found: list[ClusterQueue | None] = []
    for what, each in (("queue", name), *(("fallback queue", each) for each in fallbacks)):
        try:
            found.append(cluster.queue(each, what))
        except InvalidResources as error:
            problems.append(str(error))
            found.append(None)
    return found[0], problems


def _hint(cluster: KnownCluster, requested: Resources) -> str:
    """Return which queue would accept the request without adjustment."""
    for queue in cluster.queues.values():
        if queue.validate_resources(strict=True, **requested)[0]:
            return f" (queue {queue.queue_name!r} would accept it unchanged)"
    return ""


def _moved(requested: Resources, coerced: Resources) -> str:
    before = normalized(requested)
    return ", ".join(
        f"{key} {coerced[key]:g} {UNITS[key]}"
        for key in UNITS
        if key in before and key in coerced and coerced[key] != before[key]
    )


def _listed(problems: list[str]) -> str:
    """Return the problems, one per line, up to a maximum."""
    more = len(problems) - PROBLEMS_LISTED_MAX
    return "\n".join([*problems[:PROBLEMS_LISTED_MAX], *([f"... and {more} more."] if more > 0 else [])])


def _given_by(task: Task, problem: str) -> str:
    """Return which defaults set the resources that a problem names, as far as the task itself did not set them."""
    asked = {**task.compute_resources, **task.resource_scales}
    named = [key for key in asked if repr(key) in problem or f"{key} " in problem]
    sources = [f"{key!r} by {source}" for key in named if (source := task.source_of(key))]
    return f" (given as default: {', '.join(sources)})" if sources else ""


def _problems_with_scales(task: Task, queue: ClusterQueue, requested: Resources) -> list[str]:
    unknown = unknown_keys(task.resource_scales, {*UNITS} | queue.extra_keys)
    return [f"resource_scales: {each}" for each in unknown] or problems_with_scales(requested, task.resource_scales)
