"""The clusters of a distributor whose commands run on this machine: what they say, what they are told, their cores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jobmon.distributor import batch
from jobmon.distributor.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import DirectClusterDistributor, Launch
    from jobmon.core.wire.launching import SlotsGranted, SlotsWanted
    from jobmon.distributor.files import OutputFiles
    from jobmon.distributor.state import DistributorState


class DirectClusters:
    """All of them. Their adapters start here, with nothing granted of what they share with other workflows.

    Args:
        adapters: cluster name -> its adapter.
        host: this machine.
        clock: the time.
        wake: is set when one of them has something to say.
    """

    def __init__(
        self, adapters: Mapping[str, DirectClusterDistributor], host: str, clock: Clock, wake: asyncio.Event
    ) -> None:
        self._adapters = dict(adapters)
        self._host = host
        self._clock = clock
        self._wake = wake
        self._leases = Leases(host)
        self._watched: dict[str, int] = {}
        self._tells_starts: set[str] = set()
        for adapter in self._adapters.values():
            self._leases.open(adapter)
            adapter.start()

    def serve(self, state: DistributorState, files: OutputFiles) -> None:
        """Take the memory and the files that go with the distributor's workflow."""
        self._state = state
        self._files = files

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._adapters)

    # -- what they say -----------------------------------------------------------------------------------------

    def collect(self) -> bool:
        """Take in what they say; return whether the lines to all of them stand."""
        for name, adapter in self._adapters.items():
            endings = adapter.collect_exits()
            starts = adapter.collect_starts()
            if starts is not None:
                self._state.started(starts)
                self._tells_starts.add(name)
            for ended in self._state.ended(endings):
                tail = self._files.tail(ended.launch, ended.ending.task_instance_id)
                self._state.say(
                    batch.report_of(
                        ended.ending, host=self._host, launch=ended.launch, tail=tail, kill_cause=ended.kill_cause
                    )
                )
            self._watch(name, adapter.fileno())
        return all(adapter.is_connected() for adapter in self._adapters.values())

    def _watch(self, name: str, descriptor: int) -> None:
        """Be woken when the cluster has something; its descriptor changes when it starts anew."""
        loop = asyncio.get_running_loop()
        known = self._watched.get(name, -1)
        if descriptor != known:
            if known >= 0:
                loop.remove_reader(known)
                del self._watched[name]
            if descriptor >= 0:
                loop.add_reader(descriptor, self._wake.set)
                self._watched[name] = descriptor

    @property
    def must_be_asked(self) -> bool:
        """Whether one of them cannot wake us."""
        return any(adapter.fileno() < 0 for adapter in self._adapters.values() if adapter.is_connected())

    def connect(self) -> None:
        """Take up again the lines that broke."""
        for adapter in self._adapters.values():
            if not adapter.is_connected():
                adapter.start()

    def living(self) -> dict[str, Mapping[int, str]]:
        """Return cluster name -> {attempt: distributor id} of what really runs."""
        return {name: adapter.adopt() for name, adapter in self._adapters.items()}

    # -- what they are told ------------------------------------------------------------------------------------

    def launch(self, launches: Mapping[str, Sequence[Launch]]) -> None:
        """Hand these over."""
        for name, some in launches.items():
            self._files.prepare(some)
            self._state.spawned(self._adapters[name].spawn(some))
            if name not in self._tells_starts:
                now = self._clock.now().timestamp()
                self._state.started({launch.task_instance_id: now for launch in some})

    def terminate(self, name: str, distributor_ids: list[str]) -> bool:
        """End these, if the cluster is one of ours."""
        adapter = self._adapters.get(name)
        if adapter is not None:
            adapter.terminate_task_instances(distributor_ids)
        return adapter is not None

    def recall(self) -> None:
        """Nothing more is to be started of what was handed over."""
        for adapter in self._adapters.values():
            adapter.recall()

    def acknowledge(self, ended: Sequence[int]) -> None:
        """The server has recorded how these ended."""
        for adapter in self._adapters.values():
            adapter.acknowledge(ended)

    def leave(self) -> None:
        """Let go of them; what runs goes on."""
        loop = asyncio.get_running_loop()
        for descriptor in self._watched.values():
            loop.remove_reader(descriptor)
        for adapter in self._adapters.values():
            adapter.stop()

    # -- cores that are shared ---------------------------------------------------------------------------------

    def slots_wanted(self) -> dict[str, SlotsWanted]:
        """Return what the next request says of them."""
        return self._leases.wanted(self._state)

    def slots_returned(self) -> dict[str, SlotsWanted]:
        """Return what the last request says of them."""
        return self._leases.farewell(self._state)

    def hear_slots(self, granted: Mapping[str, SlotsGranted]) -> None:
        """Take what was granted."""
        self._leases.hear(granted, self._state)

    @property
    def must_tell_slots(self) -> bool:
        """Whether a request is due although there is nothing else to say."""
        return self._leases.must_tell(self._state)
