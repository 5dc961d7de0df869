"""Defaults of a level (tool, workflow, template): cluster, resources, scales, attempts; and reading them from YAML.

A set of defaults is {cluster: {resource: value}}. The cluster name "" means every cluster. `merged` merges levels key
by key; later levels take precedence.
"""

from __future__ import annotations

import difflib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobmon.client.command_settings import checked_settings
from jobmon.core.constants import DEFAULT_MAX_ATTEMPTS, PRIORITY_MAX
from jobmon.core.exceptions import InvalidResources, JobmonError
from jobmon.core.keywords import also_named
from jobmon.core.resources import AUTO, SCALE_VALUES_MAX, UNITS, Resources, is_auto, normalized, stored_scale
from jobmon.core.texts import checked_name, checked_text

if TYPE_CHECKING:
    from jobmon.client.task_template import TaskTemplate

TOOL_RESOURCES: Final = "tool_resources"
TOOL_SCALES: Final = "tool_resource_scales"
TEMPLATE_RESOURCES: Final = "task_template_resources"
TEMPLATE_SCALES: Final = "task_template_resource_scales"
#: Alternative section names that existing files use.
_OTHER_NAMES: Final = {TOOL_SCALES: "tool_scales", TEMPLATE_SCALES: "task_template_scales"}
MAX_ATTEMPTS_MAX: Final = 1_000_000
#: Maximum number of levels of lists and dicts in a requested resource or a scale.
VALUE_DEPTH_MAX: Final = 20
#: Maximum number of tasks whose errors are fetched at once.
ERROR_TASKS_MAX: Final = 10_000
ResourcesSet = dict[str, dict[str, Any]]


class IteratorScale:
    """A scale given as an iterator. Its values are read once, only as far as needed, and shared by all of its tasks."""

    __slots__ = ("_read", "_source")

    def __init__(self, source: Iterator[float]) -> None:
        self._source = source
        self._read: list[float] = []

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same iterator, also when compared with the iterator itself."""
        return self is other or self._source is other

    __hash__ = None  # type: ignore[assignment]

    def values(self, length_max: int) -> list[float]:
        """Return the first values, one for each attempt.

        Args:
            length_max: maximum number of values to return.

        Raises:
            InvalidResources: the iterator yields no values.
        """
        missing = min(length_max, SCALE_VALUES_MAX) - len(self._read)
        self._read += [value for _, value in zip(range(missing), self._source, strict=False)]
        if not self._read:
            raise InvalidResources("A resource scale that is an iterable needs at least one value.")
        return self._read[:length_max]


def name_hint(name: object, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known name, or all of them."""
    candidates = sorted(known)
    near = difflib.get_close_matches(str(name), candidates, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid names: {', '.join(candidates)}." if candidates else "; there are none."


def whole(value: Any) -> int | None:
    """Return an integer, also if it is given as a float (as R does) or by NumPy; None for anything else."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if not isinstance(value, Real):
        return None
    try:
        number = int(float(value))
    except (ValueError, OverflowError):  # not finite
        return None
    return number if number == value else None


def checked_max_attempts(value: object) -> int | None:
    """Return a number of attempts or None.

    Raises:
        ValueError: not an integer of at least 1.
    """
    if value is None:
        return None
    number = whole(value)
    if number is None or not 1 <= number <= MAX_ATTEMPTS_MAX:
        raise ValueError(f"max_attempts must be an integer from 1 to {MAX_ATTEMPTS_MAX}, not {value!r}.")
    return number


def checked_limit(value: object, what: str = "max_concurrently_running") -> int:
    """Return a concurrency limit.

    Raises:
        ValueError: not an integer of at least 0.
    """
    number = whole(value)
    if number is None or not 0 <= number <= 2**31 - 1:
        raise ValueError(f"{what} must be an integer from 0 (paused) to 2147483647, not {value!r}.")
    return number


def checked_priority(value: object, what: str = "priority") -> int:
    """Return a priority.

    Raises:
        ValueError: not an integer from -1000 to 1000.
    """
    number = whole(value)
    if number is None or abs(number) > PRIORITY_MAX:
        raise ValueError(f"{what} must be an integer from -{PRIORITY_MAX} to {PRIORITY_MAX}, not {value!r}.")
    return number


def checked_chunk_size(value: object, what: str = "chunk_size") -> int:
    """Return the number of items to send or fetch at once.

    Raises:
        ValueError: not an integer of at least 1.
    """
    number = whole(value)
    if number is None or number < 1:
        raise ValueError(f"{what} must be an integer of at least 1, not {value!r}; omit it for 500.")
    return number


def checked_error_limit(value: object, what: str = "limit") -> int:
    """Return the maximum number of tasks whose errors to fetch.

    Raises:
        ValueError: not an integer of at least 1.
    """
    number = whole(value)
    if number is None or not 1 <= number <= ERROR_TASKS_MAX:
        raise ValueError(f"{what} must be a number of tasks, an integer from 1 to {ERROR_TASKS_MAX}, not {value!r}.")
    return number


def checked_seconds(value: Any, what: str, *, is_zero_allowed: bool = True) -> float:
    """Return a number of seconds; numbers of NumPy become plain ones.

    Raises:
        ValueError: not a finite number, below 0, or 0 although that is not allowed.
    """
    number: Any = _plain(value)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if is_number and 0 <= number < math.inf and (number or is_zero_allowed):
        return float(number) if isinstance(number, float) else int(number)
    raise ValueError(
        f"{what} must be a number of seconds {'of at least' if is_zero_allowed else 'above'} 0, not {value!r}."
    )


def checked_flag(value: object, what: str) -> bool:
    """Return a flag; 0 and 1 are accepted, also as floats and as values of NumPy, and None means False.

    Raises:
        ValueError: any other value, such as the string "False", which Python takes for true.
    """
    plain = _plain(value)
    if plain is None or (isinstance(plain, int | float) and plain in (0, 1)):
        return bool(plain)
    raise ValueError(f"{what} must be True or False, not {value!r}.")


def checked_cluster_name(name: object) -> str:
    """Return a cluster's name, or "" for none.

    Raises:
        ValueError: not a text, or a text that cannot be recorded.
    """
    if name is not None and not isinstance(name, str):
        raise ValueError(f"cluster_name must be a string, not {name!r}.")
    return checked_name("The cluster_name", name or "")


def checked_resources(resources: object, what: str = "compute_resources", cluster_name: str = "") -> Resources:
    """Return a copy of a request that can be recorded. "auto" derives all of it from earlier tasks.

    Args:
        resources: the request.
        what: name of the value in messages.
        cluster_name: the cluster for which it is declared; "" means any cluster.

    Raises:
        ValueError: not a dict of names, or a value is invalid; the message names it.
    """
    if is_auto(resources):
        resources = dict.fromkeys(UNITS, AUTO)
    try:
        copy = {key: _plain(value) for key, value in _mapping(resources, what).items()}
        normalized(copy, allow_auto=True)
    except JobmonError as error:
        raise type(error)(f"{what}: {error}") from None
    if not isinstance(copy.get("queue", ""), str | None):
        raise InvalidResources(f"{what}: queue must be a string, not {copy['queue']!r}.")
    for key, value in copy.items():
        _check_recordable(value, f"{what}[{key!r}]")
    checked_settings(copy, what, cluster_name)
    return copy


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidResources(f"{what} must be a dict of names and values, not {value!r}.")
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    """Copy values that the caller could change later; convert paths and NumPy numbers to plain values."""
    if depth > VALUE_DEPTH_MAX:
        raise InvalidResources(f"A value is nested more than {VALUE_DEPTH_MAX} levels deep, or contains itself.")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    item: Callable[[], Any] | None = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _check_recordable(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            checked_text(what, value)
        except ValueError as error:
            raise InvalidResources(str(error)) from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_recordable(key, what)
            _check_recordable(item, f"{what}[{key!r}]")
    elif isinstance(value, list):
        for item in value:
            _check_recordable(item, what)
    elif not isinstance(value, int | float | None):
        raise InvalidResources(f"{what} is a {type(value).__name__}, which cannot be recorded.")


def checked_scales(scales: object, what: str = "resource_scales") -> dict[str, Any]:
    """Return a copy of scales in which no iterator is consumed twice.

    Raises:
        ValueError: not a dict of names, or a value is not a scale.
    """
    return {key: _checked_scale(key, scale, what) for key, scale in _mapping(scales, what).items()}


def _checked_scale(key: str, scale: object, what: str) -> object:
    if isinstance(scale, IteratorScale):
        return scale
    if isinstance(scale, Iterator) and not callable(scale):
        return IteratorScale(scale)
    try:
        stored = stored_scale(_plain(scale))
    except InvalidResources as error:
        raise InvalidResources(f"{what}[{key!r}]: {error}") from None
    if isinstance(stored, int | float) and not (math.isfinite(stored) and stored >= 0):
        raise InvalidResources(
            f"{what}[{key!r}]: the factor of a scale must be a number of at least 0, not {stored!r}."
        )
    return stored


def merged(levels: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Merge levels key by key; later levels take precedence."""
    result: dict[str, Any] = {}
    for level in levels:
        if level:
            result.update(level)
    return result


class HasDefaults:
    """A level that has defaults: a tool, workflow or task template."""

    #: Name of the level in messages.
    level: ClassVar[str] = "its defaults"

    def __init__(
        self,
        default_cluster_name: str = "",
        default_compute_resources_set: Mapping[str, Mapping[str, Any]] | None = None,
        default_resource_scales_set: Mapping[str, Mapping[str, Any]] | None = None,
        default_max_attempts: int | None = None,
    ) -> None:
        self.default_cluster_name = checked_cluster_name(default_cluster_name)
        self.default_compute_resources_set: ResourcesSet = {}
        self.default_resource_scales_set: ResourcesSet = {}
        self.default_max_attempts = checked_max_attempts(default_max_attempts)
        self._files: dict[str, str] = {}  # cluster -> the section of the file that set its defaults
        resources_set = _mapping(default_compute_resources_set or {}, "default_compute_resources_set")
        for cluster, resources in resources_set.items():
            self.default_compute_resources_set[checked_cluster_name(cluster)] = checked_resources(
                resources, cluster_name=cluster
            )
        scales_set = _mapping(default_resource_scales_set or {}, "default_resource_scales_set")
        for cluster, scales in scales_set.items():
            self.default_resource_scales_set[checked_cluster_name(cluster)] = checked_scales(scales)
        self._select({*resources_set, *scales_set})

    @also_named(cluster_name="name")
    def set_default_cluster_name(self, name: str) -> None:
        """Set the cluster of tasks that do not name one.

        Args:
            name: the cluster. "" removes the default: the next level decides, or the next defaults that name a cluster.

        Raises:
            ValueError: the name is not a text.
        """
        self.default_cluster_name = checked_cluster_name(name)

    def _select(self, clusters: Iterable[str]) -> None:
        """Make the named cluster the default cluster, unless a default is set or several clusters are named."""
        named = [*filter(None, clusters)]
        if not self.default_cluster_name and len(named) == 1:
            self.default_cluster_name = named[0]

    def set_default_max_attempts(self, value: int | None) -> None:
        """Set the maximum number of attempts for tasks that do not set their own.

        Args:
            value: an integer of at least 1; None uses the default of the next level.

        Raises:
            ValueError: the value is neither None nor such an integer.
        """
        self.default_max_attempts = checked_max_attempts(value)

    def update_default_compute_resources(self, cluster_name: str, **kwargs: Any) -> None:
        """Change some of the default resources for a cluster and keep the others.

        Args:
            cluster_name: the cluster to which they apply; "" means every cluster. If this object has no default cluster
                yet, this cluster becomes the default.
            kwargs: resources by name, as in `compute_resources`.

        Raises:
            ValueError: a value is invalid; the message names it.
        """
        name = checked_cluster_name(cluster_name)
        resources = checked_resources(kwargs, cluster_name=name)
        self._files.pop(name, None)
        self.default_compute_resources_set.setdefault(name, {}).update(resources)
        self._select([name])

    def update_default_resource_scales(self, cluster_name: str, **kwargs: Any) -> None:
        """Change some of the default scales for a cluster and keep the others.

        Args:
            cluster_name: as for `update_default_compute_resources`.
            kwargs: scales by resource name, as in `resource_scales`.

        Raises:
            ValueError: a value is not a scale; the message names it.
        """
        name, scales = checked_cluster_name(cluster_name), checked_scales(kwargs)
        self.default_resource_scales_set.setdefault(name, {}).update(scales)
        self._select([name])

    @also_named(dictionary="compute_resources")
    def set_default_compute_resources_from_dict(self, cluster_name: str, compute_resources: Mapping[str, Any]) -> None:
        """Replace the default resources for a cluster.

        Args:
            cluster_name: the cluster to which they apply; "" means every cluster. If this object has no default cluster
                yet, this cluster becomes the default.
            compute_resources: resources by name.

        Raises:
            ValueError: a value is invalid; the message names it.
        """
        name = checked_cluster_name(cluster_name)
        resources = checked_resources(compute_resources, cluster_name=name)
        self.default_compute_resources_set[name] = resources
        self._files.pop(name, None)
        self._select([name])

    @also_named(dictionary="resource_scales")
    def set_default_resource_scales_from_dict(self, cluster_name: str, resource_scales: Mapping[str, Any]) -> None:
        """Replace the default scales for a cluster.

        Args:
            cluster_name: as for `set_default_compute_resources_from_dict`.
            resource_scales: scales by resource name.

        Raises:
            ValueError: a value is not a scale; the message names it.
        """
        name, scales = checked_cluster_name(cluster_name), checked_scales(resource_scales)
        self.default_resource_scales_set[name] = scales
        self._select([name])

    def declares_for(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the clusters for which this level declares resources, and those for which it declares scales."""
        resources, scales = self.default_compute_resources_set, self.default_resource_scales_set
        return frozenset(name for name in resources if resources[name]), frozenset(n for n in scales if scales[n])

    def resources_for(self, cluster_name: str) -> Resources:
        """Return the default resources that apply on a cluster.

        Args:
            cluster_name: the cluster; "" returns only the defaults for every cluster.
        """
        return _for_cluster(self.default_compute_resources_set, cluster_name)

    def scales_for(self, cluster_name: str) -> dict[str, Any]:
        """Return the default scales that apply on a cluster.

        Args:
            cluster_name: the cluster; "" returns only the defaults for every cluster.
        """
        return _for_cluster(self.default_resource_scales_set, cluster_name)

    def source_of(self, resource: str, cluster_name: str) -> str:
        """Return where this level's default for a resource or its scale was set, as text; "" if it has none.

        Args:
            resource: name of the resource.
            cluster_name: the cluster; "" considers only the defaults for every cluster.
        """
        if not {resource} & {*self.resources_for(cluster_name), *self.scales_for(cluster_name)}:
            return ""
        return self._files.get(cluster_name) or self.level

    def _set_resources(self, by_cluster: Mapping[str, Any] | None, default_cluster_name: str, where: str) -> None:
        def checked(resources: object, cluster_name: str) -> Resources:
            return checked_resources(resources, cluster_name=cluster_name)

        self._set_each(self.default_compute_resources_set, checked, by_cluster, default_cluster_name, where)

    def _set_scales(self, by_cluster: Mapping[str, Any] | None, default_cluster_name: str, where: str) -> None:
        def checked(scales: object, _cluster_name: str) -> dict[str, Any]:
            return checked_scales(scales)

        self._set_each(self.default_resource_scales_set, checked, by_cluster, default_cluster_name, where)

    def _set_each(
        self,
        target: ResourcesSet,
        checked: Callable[[object, str], dict[str, Any]],
        by_cluster: Mapping[str, Any] | None,
        default_cluster_name: str,
        where: str,
    ) -> None:
        """Set the values that a file declares for each cluster; errors name the section of the file.

        A file that describes one cluster selects it; a file that describes several clusters selects none.
        """
        if by_cluster is None:
            return
        for cluster, values in by_cluster.items():
            try:
                target[checked_cluster_name(cluster)] = checked(values, cluster)
            except JobmonError as error:
                raise InvalidResources(f"{where}.{cluster}: {error}") from None
            self._files[cluster] = f"{where}.{cluster}"
        if default_cluster_name:
            self.set_default_cluster_name(default_cluster_name)
        else:
            self._select(by_cluster)


class HasToolDefaults(HasDefaults, ABC):
    """A level whose section in a YAML file has the name of its tool: the tool itself and its workflows."""

    @property
    @abstractmethod
    def _defaults_owner(self) -> str:
        """The tool's name."""

    @property
    @abstractmethod
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        """The templates to which `set_task_templates` applies."""

    @also_named(cluster_name="default_cluster_name")
    def set_default_compute_resources_from_yaml(
        self,
        default_cluster_name: str,
        yaml_file: str | os.PathLike[str],
        set_task_templates: bool = False,
        ignore_missing_keys: bool = False,
    ) -> None:
        """Read default resources from the section `tool_resources.<tool>` of a YAML file.

        Args:
            default_cluster_name: becomes the default cluster; the file must describe it. "" selects the cluster of the
                file if there is only one and no default cluster is set.
            yaml_file: path of the file.
            set_task_templates: also read the sections of all templates of the tool.
            ignore_missing_keys: skip sections that the file lacks, instead of raising an error.

        Raises:
            ValueError: the file cannot be read or lacks a key; the message names file and key, and the nearest known
                key.
        """
        file = DefaultsFile(yaml_file, ignore_missing_keys)
        owner = (TOOL_RESOURCES, self._defaults_owner)
        self._set_resources(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))
        for template in self._defaults_templates if set_task_templates else ():
            template.take_resources(file, default_cluster_name)

    @also_named(cluster_name="default_cluster_name")
    def set_default_resource_scales_from_yaml(
        self,
        default_cluster_name: str,
        yaml_file: str | os.PathLike[str],
        set_task_templates: bool = False,
        ignore_missing_keys: bool = False,
    ) -> None:
        """Read default scales from the section `tool_resource_scales.<tool>` of a YAML file.

        Args:
            default_cluster_name: becomes the default cluster; the file must describe it. "" selects the cluster of the
                file if there is only one and no default cluster is set.
            yaml_file: path of the file.
            set_task_templates: also read the sections of all templates of the tool.
            ignore_missing_keys: skip sections that the file lacks, instead of raising an error.

        Raises:
            ValueError: the file cannot be read or lacks a key; the message names file and key, and the nearest known
                key.
        """
        file = DefaultsFile(yaml_file, ignore_missing_keys)
        owner = (TOOL_SCALES, self._defaults_owner)
        self._set_scales(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))
        for template in self._defaults_templates if set_task_templates else ():
            template.take_scales(file, default_cluster_name)


def _for_cluster(by_cluster: ResourcesSet, cluster_name: str) -> dict[str, Any]:
    return merged((by_cluster.get(""), by_cluster.get(cluster_name) if cluster_name else None))


def first_max_attempts(levels: Iterable[int | None]) -> int:
    """Return the first number of attempts that is set; levels are given strongest first."""
    return next((value for value in levels if value is not None), DEFAULT_MAX_ATTEMPTS)


class DefaultsFile:
    """A YAML file {section: {owner: {cluster: {resource: value}}}}.

    The sections of tools may also be {cluster: {resource: value}}; they then apply to any tool.
    """

    def __init__(self, path: str | os.PathLike[str], ignore_missing_keys: bool = False) -> None:
        self.path = Path(path)
        self._ignore_missing = ignore_missing_keys
        self._content = self._read()

    def _read(self) -> Mapping[str, Any]:
        import yaml

        try:
            content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"Resources file {self.path} cannot be read: {error}") from error
        if not isinstance(content, Mapping):
            raise ValueError(f"Resources file {self.path} must be a mapping of sections such as tool_resources.")
        return content

    def where(self, section: str, owner: str) -> str:
        """Return the file and section of an owner's values, for messages."""
        return f"{self.path}, {self._place(section, owner)}"

    def by_cluster(self, section: str, owner: str, cluster_name: str = "") -> Mapping[str, Any] | None:
        """Return {cluster: {resource: value}} of an owner; None if it is missing and missing keys are ignored.

        Raises:
            ValueError: section, owner or cluster is missing; the message names file and key, and the nearest known key.
        """
        name = self._name(section)
        owners = self._entry(self._content, name, "")
        is_by_cluster = owners is not None and self._is_by_cluster(section, owner)
        clusters = owners if owners is None or is_by_cluster else self._entry(owners, owner, name)
        if clusters is None:
            return None
        if cluster_name and cluster_name not in clusters and not self._ignore_missing:
            raise self._missing(cluster_name, self._place(section, owner), clusters)
        return clusters

    def _name(self, section: str) -> str:
        """Return the name that the file uses for a section."""
        other = _OTHER_NAMES.get(section, section)
        return other if other in self._content and section not in self._content else section

    def _place(self, section: str, owner: str) -> str:
        name = self._name(section)
        return name if self._is_by_cluster(section, owner) else f"{name}.{owner}"

    def _is_by_cluster(self, section: str, owner: str) -> bool:
        """Return whether a section of tools has clusters where it usually has tools, so that resources come next."""
        owners = self._content.get(self._name(section))
        if section not in (TOOL_RESOURCES, TOOL_SCALES) or not isinstance(owners, Mapping) or not owners:
            return False
        entries = [owners[owner]] if owner in owners else [*owners.values()]
        return all(_are_values(entry) for entry in entries)

    def _entry(self, entries: Mapping[str, Any], key: str, parent: str) -> Mapping[str, Any] | None:
        if key not in entries:
            if self._ignore_missing:
                return None
            raise self._missing(key, parent, entries)
        entry = entries[key]
        if not isinstance(entry, Mapping):
            raise ValueError(f"Resources file {self.path}: {key!r} must be a mapping, not {entry!r}.")
        return entry

    def _missing(self, key: str, parent: str, entries: Mapping[str, Any]) -> ValueError:
        inside = f" in {parent}" if parent else ""
        return ValueError(f"Resources file {self.path} has no key {key!r}{inside}{name_hint(key, map(str, entries))}")


def _are_values(entry: object) -> bool:
    return isinstance(entry, Mapping) and bool(entry) and not any(isinstance(one, Mapping) for one in entry.values())
