"""Defaults of a level (tool, workflow, template): cluster, resources, scales, attempts; and reading them from YAML.

A set of defaults is {cluster: {resource: value}}. The cluster name "" means every cluster. Levels are merged key by
key by `merged`: later ones are stronger.
"""

from __future__ import annotations

import difflib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobmon.core.constants import DEFAULT_MAX_ATTEMPTS
from jobmon.core.exceptions import InvalidResources, JobmonError
from jobmon.core.resources import AUTO, SCALE_VALUES_MAX, UNITS, Resources, is_auto, normalized, stored_scale

if TYPE_CHECKING:
    from jobmon.client.task_template import TaskTemplate

MAX_ATTEMPTS_MAX: Final = 1_000_000
ResourcesSet = dict[str, dict[str, Any]]


class IteratorScale:
    """A scale given as an iterator: read once, no further than asked for, shared by all tasks that it was given to."""

    __slots__ = ("_read", "_source")

    def __init__(self, source: Iterator[float]) -> None:
        self._source = source
        self._read: list[float] = []

    def __eq__(self, other: object) -> bool:
        """Say whether it is the same iterator: also when compared with the iterator itself."""
        return self is other or self._source is other

    __hash__ = None  # type: ignore[assignment]

    def values(self, length_max: int) -> list[float]:
        """Return the first values, as many as there are attempts.

        Raises:
            InvalidResources: there are none.
        """
        missing = min(length_max, SCALE_VALUES_MAX) - len(self._read)
        self._read += [value for _, value in zip(range(missing), self._source, strict=False)]
        if not self._read:
            raise InvalidResources("A resource scale that is an iterable needs at least one value.")
        return self._read[:length_max]


def name_hint(name: object, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known one, or all."""
    candidates = sorted(known)
    near = difflib.get_close_matches(str(name), candidates, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(candidates)}." if candidates else "; there are none."


def checked_max_attempts(value: object) -> int | None:
    """Return a number of attempts or None.

    Raises:
        ValueError: not a whole number from 1 on.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ATTEMPTS_MAX:
        raise ValueError(f"max_attempts must be a whole number from 1 to {MAX_ATTEMPTS_MAX}, not {value!r}.")
    return value


def checked_limit(value: object, what: str = "max_concurrently_running") -> int:
    """Return a limit of concurrency.

    Raises:
        ValueError: not a whole number from 0 on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**31 - 1:
        raise ValueError(f"{what} must be a whole number from 0 (paused) to 2147483647, not {value!r}.")
    return value


def checked_chunk_size(value: object, what: str = "chunk_size") -> int:
    """Return how many things to send or fetch at once.

    Raises:
        ValueError: not a whole number from 1 on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number from 1 on, not {value!r}; leave it out for 500.")
    return value


def checked_cluster_name(name: object) -> str:
    """Return a cluster's name, or "" for none.

    Raises:
        ValueError: not a text.
    """
    if name is not None and not isinstance(name, str):
        raise ValueError(f"cluster_name must be a text, not {name!r}.")
    return name or ""


def checked_resources(resources: object, what: str = "compute_resources") -> Resources:
    """Return a copy of a request that can be recorded; "auto" means that all of it is taken from the history.

    Raises:
        ValueError: not a dict of names, or a value that cannot be read; names it.
    """
    if is_auto(resources):
        resources = dict.fromkeys(UNITS, AUTO)
    copy = {key: _plain(value) for key, value in _mapping(resources, what).items()}
    try:
        normalized(copy, allow_auto=True)
    except JobmonError as error:
        raise type(error)(f"{what}: {error}") from None
    if not isinstance(copy.get("queue", ""), str | None):
        raise InvalidResources(f"{what}: queue must be a text, not {copy['queue']!r}.")
    for key, value in copy.items():
        _check_recordable(value, f"{what}[{key!r}]")
    return copy


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidResources(f"{what} must be a dict of names and values, not {value!r}.")
    return value


def _plain(value: Any) -> Any:
    """Copy what could be changed behind our back; bring paths and numbers of NumPy into plain form."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    item: Callable[[], Any] | None = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _check_recordable(value: Any, what: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_recordable(item, f"{what}[{key!r}]")
    elif isinstance(value, list):
        for item in value:
            _check_recordable(item, what)
    elif not isinstance(value, str | int | float | None):
        raise InvalidResources(f"{what} is a {type(value).__name__}, which cannot be recorded.")


def checked_scales(scales: object, what: str = "resource_scales") -> dict[str, Any]:
    """Return a copy of scales in which nothing runs out.

    Raises:
        ValueError: not a dict of names, or a value that is no scale.
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
        raise InvalidResources(f"{what}[{key!r}]: a factor of a scale must be a number not below 0, not {stored!r}.")
    return stored


def merged(levels: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Merge levels key by key, the later ones stronger."""
    result: dict[str, Any] = {}
    for level in levels:
        if level:
            result.update(level)
    return result


class HasDefaults:
    """A level that has defaults."""

    #: What it is, for messages.
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
        self._files: dict[str, str] = {}  # cluster -> the place in a file from which its defaults come
        for cluster, resources in _mapping(
            default_compute_resources_set or {}, "default_compute_resources_set"
        ).items():
            self.set_default_compute_resources_from_dict(cluster, resources)
        for cluster, scales in _mapping(default_resource_scales_set or {}, "default_resource_scales_set").items():
            self.set_default_resource_scales_from_dict(cluster, scales)

    def set_default_cluster_name(self, name: str) -> None:
        """Set the cluster for tasks that name none."""
        self.default_cluster_name = checked_cluster_name(name)

    def set_default_max_attempts(self, value: int | None) -> None:
        """Set how many attempts a task gets that does not say so itself."""
        self.default_max_attempts = checked_max_attempts(value)

    def update_default_compute_resources(self, cluster_name: str, **kwargs: Any) -> None:
        """Change some of the default resources for a cluster and keep the others."""
        self._files.pop(cluster_name, None)
        self.default_compute_resources_set.setdefault(checked_cluster_name(cluster_name), {}).update(
            checked_resources(kwargs)
        )

    def update_default_resource_scales(self, cluster_name: str, **kwargs: Any) -> None:
        """Change some of the default scales for a cluster and keep the others."""
        self.default_resource_scales_set.setdefault(checked_cluster_name(cluster_name), {}).update(
            checked_scales(kwargs)
        )

    def set_default_compute_resources_from_dict(self, cluster_name: str, compute_resources: Mapping[str, Any]) -> None:
        """Replace the default resources for a cluster."""
        self.default_compute_resources_set[checked_cluster_name(cluster_name)] = checked_resources(compute_resources)
        self._files.pop(cluster_name, None)

    def set_default_resource_scales_from_dict(self, cluster_name: str, resource_scales: Mapping[str, Any]) -> None:
        """Replace the default scales for a cluster."""
        self.default_resource_scales_set[checked_cluster_name(cluster_name)] = checked_scales(resource_scales)

    def resources_for(self, cluster_name: str) -> Resources:
        """Return the default resources that hold on a cluster."""
        return _for_cluster(self.default_compute_resources_set, cluster_name)

    def scales_for(self, cluster_name: str) -> dict[str, Any]:
        """Return the default scales that hold on a cluster."""
        return _for_cluster(self.default_resource_scales_set, cluster_name)

    def source_of(self, resource: str, cluster_name: str) -> str:
        """Return where this level has a resource or a scale from, in words; "" if it has none of that name."""
        if not {resource} & {*self.resources_for(cluster_name), *self.scales_for(cluster_name)}:
            return ""
        return self._files.get(cluster_name) or self.level

    def _set_resources(self, by_cluster: Mapping[str, Any] | None, default_cluster_name: str, where: str) -> None:
        self._set_each(self.set_default_compute_resources_from_dict, by_cluster, default_cluster_name, where)

    def _set_scales(self, by_cluster: Mapping[str, Any] | None, default_cluster_name: str, where: str) -> None:
        self._set_each(self.set_default_resource_scales_from_dict, by_cluster, default_cluster_name, where)

    def _set_each(
        self,
        setter: Callable[[str, Mapping[str, Any]], None],
        by_cluster: Mapping[str, Any] | None,
        default_cluster_name: str,
        where: str,
    ) -> None:
        """Set what a file says of each cluster; an error names the place in the file."""
        for cluster, values in (by_cluster or {}).items():
            try:
                setter(cluster, values)
            except JobmonError as error:
                raise InvalidResources(f"{where}.{cluster}: {error}") from None
            self._files[cluster] = f"{where}.{cluster}"
        if default_cluster_name and by_cluster is not None:
            self.set_default_cluster_name(default_cluster_name)


class HasToolDefaults(HasDefaults, ABC):
    """A level whose part of a YAML file stands under its tool's name: the tool itself and a workflow of it."""

    @property
    @abstractmethod
    def _defaults_owner(self) -> str:
        """The tool's name."""

    @property
    @abstractmethod
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        """The templates that `set_task_templates` means."""

    def set_default_compute_resources_from_yaml(
        self,
        default_cluster_name: str,
        yaml_file: str | os.PathLike[str],
        set_task_templates: bool = False,
        ignore_missing_keys: bool = False,
    ) -> None:
        """Take `tool_resources.<tool>` of a YAML file as default resources, perhaps also those of all templates.

        Raises:
            ValueError: the file cannot be read, or lacks a key; names file, key and the nearest known one.
        """
        file = DefaultsFile(yaml_file, ignore_missing_keys)
        owner = ("tool_resources", self._defaults_owner)
        self._set_resources(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))
        for template in self._defaults_templates if set_task_templates else ():
            template.take_resources(file, default_cluster_name)

    def set_default_resource_scales_from_yaml(
        self,
        default_cluster_name: str,
        yaml_file: str | os.PathLike[str],
        set_task_templates: bool = False,
        ignore_missing_keys: bool = False,
    ) -> None:
        """Take `tool_resource_scales.<tool>` of a YAML file as default scales, perhaps also those of all templates.

        Raises:
            ValueError: as for the resources.
        """
        file = DefaultsFile(yaml_file, ignore_missing_keys)
        owner = ("tool_resource_scales", self._defaults_owner)
        self._set_scales(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))
        for template in self._defaults_templates if set_task_templates else ():
            template.take_scales(file, default_cluster_name)


def _for_cluster(by_cluster: ResourcesSet, cluster_name: str) -> dict[str, Any]:
    return merged((by_cluster.get(""), by_cluster.get(cluster_name) if cluster_name else None))


def first_max_attempts(levels: Iterable[int | None]) -> int:
    """Return the first number of attempts that is given, from the strongest level on."""
    return next((value for value in levels if value is not None), DEFAULT_MAX_ATTEMPTS)


class DefaultsFile:
    """A YAML file {section: {owner: {cluster: {resource: value}}}}."""

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
        """Return the place of an owner's values, for messages."""
        return f"{self.path}, {section}.{owner}"

    def by_cluster(self, section: str, owner: str, cluster_name: str = "") -> Mapping[str, Any] | None:
        """Return {cluster: {resource: value}} of an owner; None: it is not there and that may be ignored.

        Raises:
            ValueError: section, owner or cluster is not there; names file, key and the nearest known one.
        """
        owners = self._entry(self._content, section, "")
        clusters = owners if owners is None else self._entry(owners, owner, section)
        if clusters is None:
            return None
        if cluster_name and cluster_name not in clusters and not self._ignore_missing:
            raise self._missing(cluster_name, f"{section}.{owner}", clusters)
        return clusters

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
