"""The queues and their limits, as reported by Grid Engine itself."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from jobmon.plugins.batch import ToolRunner
from jobmon.plugins.gridengine.answers import TEXTS
from jobmon.plugins.gridengine.commands import tool_environment
from jobmon.plugins.gridengine.parsing import limit_seconds, memory_gib, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOW_CONFIGURATION: Final = ("qconf", "-sconf", "global")
SHOW_QUEUES: Final = ("qconf", "-sql")
DISCOVERY_TIMEOUT_SECONDS: Final = 20.0
#: Maximum number of queues that are read; one call each.
QUEUES_MAX: Final = 100

Queues = list[tuple[str, dict[str, Any]]]


def is_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this host has Grid Engine's commands."""
    return all(shutil.which(tool, path=environment.get("PATH")) for tool in ("qsub", "qconf"))


def queues_here(environment: Mapping[str, str] = os.environ) -> Queues:
    """Return the batch queues of this host's cluster, in the order of their sequence numbers.

    Raises:
        ClusterUnavailable, Refused: Grid Engine does not provide them.
    """
    asking = tool_environment(environment)
    runner = ToolRunner(TEXTS, asking, asking, call_timeout=DISCOVERY_TIMEOUT_SECONDS)
    names = runner.ask(SHOW_QUEUES).split()[:QUEUES_MAX]
    found = [settings(runner.ask(["qconf", "-sq", name])) for name in names]
    batch = [queue for queue in found if "BATCH" in queue.get("qtype", "") and _text(queue, "qname")]
    return [(_text(queue, "qname"), parameters_of(queue)) for queue in sorted(batch, key=_order)]


def _order(queue: Mapping[str, str]) -> tuple[int, str]:
    number = _text(queue, "seq_no")
    return (int(number) if number.isdecimal() else 0, _text(queue, "qname"))


def _text(queue: Mapping[str, str], key: str) -> str:
    """Return a setting; values for individual hosts ("16,[node1=8]") are left out."""
    return queue.get(key, "").partition(",")[0].strip()


def parameters_of(queue: Mapping[str, str]) -> dict[str, Any]:
    """Return limits and defaults of one queue."""
    slots = _text(queue, "slots")
    environments = [name for name in queue.get("pe_list", "").replace(",", " ").split() if name != "NONE"]
    longest = limit_seconds(_text(queue, "h_rt"))
    values = {
        "max_cores": int(slots) if slots.isdecimal() and len(slots) < 10 else None,
        "max_memory": memory_gib(_text(queue, "h_vmem")),
        "max_runtime": longest,
        "default_cores": 1,
        "default_runtime": longest,
        "parallel_environments": environments,
    }
    return {key: value for key, value in values.items() if value not in (None, [])}
