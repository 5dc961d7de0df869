"""Find and check cluster plug-ins: entry points first, then modules `jobmon.plugins.<name>`."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import ClusterDistributor, ClusterQueue, ClusterWorkerNode
from jobmon.core.exceptions import PluginError

if TYPE_CHECKING:
    from types import ModuleType

ENTRY_POINT_GROUP: Final = "jobmon.plugins"
_OFFERS: Final = {
    "get_cluster_queue_class": ClusterQueue,
    "get_cluster_distributor_class": ClusterDistributor,
    "get_cluster_worker_node_class": ClusterWorkerNode,
}


def plugin_names() -> list[str]:
    """Return the sorted names of all plug-ins that can be found here; imports every module that may be one."""
    names = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(names | set(filter(_is_module_of_plugin, _module_names())))


def is_plugin(name: str) -> bool:
    """Return whether there is a plug-in of that name; imports no other."""
    if importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        return True
    return name in _module_names() and _is_module_of_plugin(name)


def _module_names() -> set[str]:
    """Return the modules in our plug-in folder and those of other distributions."""
    return {module.name for module in pkgutil.iter_modules(importlib.import_module(ENTRY_POINT_GROUP).__path__)}


def _is_module_of_plugin(name: str) -> bool:
    try:
        module = importlib.import_module(f"{ENTRY_POINT_GROUP}.{name}")
    except ImportError:
        return False
    return all(hasattr(module, offer) for offer in _OFFERS)


@cache
def load_plugin(name: str) -> ModuleType:
    """Load a plug-in and check that it provides the required interface.

    Raises:
        PluginError: there is no plug-in of that name, it cannot be imported, or it lacks part of the interface.
    """
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    target = next((point.value for point in points), f"{ENTRY_POINT_GROUP}.{name}")
    try:
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name == target:
            raise PluginError(
                f"There is no cluster plug-in {name!r}; installed are: {', '.join(plugin_names())}."
            ) from None
        raise PluginError(f"Cluster plug-in {name!r} cannot be imported: {error}.") from error
    except ImportError as error:
        raise PluginError(f"Cluster plug-in {name!r} cannot be imported: {error}.") from error
    _check(name, module)
    return module


def _check(name: str, module: ModuleType) -> None:
    for offer, base in _OFFERS.items():
        getter = getattr(module, offer, None)
        if getter is None:
            raise PluginError(f"Cluster plug-in {name!r} lacks {offer}().")
        offered = getter()
        if not (isinstance(offered, type) and issubclass(offered, base)):
            raise PluginError(f"{offer}() of cluster plug-in {name!r} must return a subclass of {base.__name__}.")


def default_queues(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the queues that a plug-in provides by itself, the default queue first; empty: they must be added by hand.

    Raises:
        PluginError: see `load_plugin`.
    """
    getter = getattr(load_plugin(name), "get_default_queues", None)
    return list(getter()) if getter is not None else []


def further_queue(name: str, queue_name: str) -> dict[str, Any] | None:
    """Return the parameters of a queue that the plug-in provides beyond its default queues; None: there is none.

    Raises:
        PluginError: see `load_plugin`.
    """
    getter = getattr(load_plugin(name), "get_queue", None)
    return getter(queue_name) if getter is not None else None
