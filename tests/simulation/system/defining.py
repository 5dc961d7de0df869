"""The user's script: it defines the workflow of a scenario, with functions that add tasks while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.system.scenario import FARM, GRID, SPLIT, Scenario, TaskPlan

from jobmon.client.tool import Tool

if TYPE_CHECKING:
    from jobmon.client.context import Context
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester


class CallRaises(Exception):
    """Raised by a function that the scenario lets fail."""


@dataclass(slots=True)
class Script:
    """The script of a scenario, from which clients make workflows.

    Args:
        scenario: the scenario.
        on_call: called with the name of an expansion when its function is called.
    """

    scenario: Scenario
    on_call: Callable[[str], None]
    #: Number of calls of each expansion, by all clients.
    calls: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if any(plan.is_expansion for plan in self.scenario.tasks):
            _running.clear()
            _running.append(self)

    def define(self, requester: Requester, made: dict[int, Any]) -> Workflow:
        """Define the workflow as a user would.

        Args:
            requester: sends the requests.
            made: gets the tasks by number, as the script's variables.
        """
        scenario = self.scenario
        tool = Tool("simulation", requester=requester)
        workflow = tool.create_workflow(
            scenario.title,
            max_concurrently_running=scenario.workflow_limit,
            default_cluster_name=GRID if scenario.first else FARM,
        )
        for plan in scenario.tasks:
            if plan.origin is None:
                upstreams = [made[index] for index in plan.upstreams]
                made[plan.index] = self._task(tool, plan, upstreams, partial(workflow.expand), made)
                if not plan.is_expansion:
                    workflow.add_task(made[plan.index])
        for template, limit in scenario.template_limits.items():
            workflow.set_task_template_max_concurrency_limit(template, limit)
        return workflow

    def load(self, name: str, made: dict[int, Any]) -> Callable[[Context], list[Any]]:
        """Return the function of a recorded name, for a client that has these tasks of the script, or none of them."""
        return self._function(int(name.rpartition("_")[2]), made)

    def _function(self, index: int, made: dict[int, Any]) -> Callable[[Context], list[Any]]:
        """Return the function of an expansion.

        Args:
            index: number of the expansion.
            made: the tasks of the script, to which what it adds may refer.
        """
        plan = self.scenario.plan(index)

        def split(context: Context) -> list[Any]:
            self.on_call(f"{plan.template}_{index}")
            self.calls[index] += 1
            if self.calls[index] <= plan.failing_calls:
                raise CallRaises(f"call {self.calls[index]} of {index} is one that fails")
            known = dict(made)
            added = []
            for each in self.scenario.added_by(index):
                upstreams = [known[one] for one in each.upstreams]
                known[each.index] = self._task(context.tool, each, upstreams, partial(context.expand), known)
                added.append(known[each.index])
            context.skip([made[one] for one in plan.skips])
            return added

        split.__qualname__ = f"{SPLIT}_{index}"
        return split

    def _task(
        self, tool: Tool, plan: TaskPlan, upstreams: list[Any], expand: Callable[..., Any], made: dict[int, Any]
    ) -> Any:
        name = f"{plan.template}_{plan.index}"
        if plan.is_expansion:
            return expand(self._function(plan.index, made), upstreams, name, max_attempts=plan.max_attempts)
        template = tool.get_task_template(plan.template, plan.template + " {index}", node_args=["index"])
        packing = self.scenario.packing if plan.cluster == GRID else {}
        return template.create_task(
            name=name,
            upstream_tasks=upstreams,
            max_attempts=plan.max_attempts,
            compute_resources={"cores": 1, "runtime": self.scenario.runtime_seconds, **packing},
            resource_scales={"runtime": 0.5},
            cluster_name=plan.cluster,
            index=plan.index,
        )


#: The script whose functions can be imported from this module.
_running: list[Script] = []


def __getattr__(name: str) -> Callable[[Context], list[Any]]:
    """Return the function of an expansion, so that clients find the functions that earlier runs have recorded."""
    if not _running or not name.startswith(f"{SPLIT}_"):
        raise AttributeError(name)
    return _running[0].load(name, {})
