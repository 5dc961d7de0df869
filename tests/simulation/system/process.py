"""Simulated processes that can be killed and paused."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from tests.simulation.system.network import Part

if TYPE_CHECKING:
    from tests.simulation.system.processes import Surrounding


class Process(abc.ABC):
    """A process that can be killed and paused. Its code runs as the part with its name."""

    def __init__(self, around: Surrounding, kind: str, host: str) -> None:
        self.around = around
        self.pid = next(around.pids)
        self.host = host
        self.part = Part(f"{kind} {self.pid}")
        around.alive.add(self.pid)

    @property
    def name(self) -> str:
        """The name of the process in traces."""
        return self.part.name

    @property
    def is_alive(self) -> bool:
        """Whether it has neither exited nor been killed."""
        return self.pid in self.around.alive

    def pause(self, seconds: float) -> None:
        """Freeze it for a time."""
        self.around.loop.freeze(self.name)
        self.around.loop.call_later(seconds, self.around.loop.thaw, self.name)

    def cut_off(self, seconds: float) -> None:
        """Disconnect its network for a time."""
        self.part.cut_off_until = max(self.part.cut_off_until, self.around.loop.time() + seconds)

    @abc.abstractmethod
    def kill(self) -> None:
        """Kill it with SIGKILL."""

    def _die(self) -> None:
        self.part.is_dead = True
        self.around.loop.thaw(self.name)
        self.around.alive.discard(self.pid)
