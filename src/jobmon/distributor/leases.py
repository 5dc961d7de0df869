"""Cores that this workflow shares with others: what the server granted, what is told to it.

A cluster that shares starts nothing before it was granted cores. Each request says what is held and wanted; a request
of its own is due only where cores are scarce and the server does not know yet what would help others or us.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.cluster_protocol import DirectClusterDistributor
from jobmon.core.wire.launching import SlotsWanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.launching import SlotsGranted
    from jobmon.distributor.state import DistributorState

_FRACTION: Final = 1e-9


@dataclass(slots=True)
class _Lease:
    """One cluster's. `granted` is None before the first answer; `told` is what the server heard last."""

    adapter: DirectClusterDistributor
    pool: str
    total: float
    granted: float | None = None
    version: int = 0
    told: SlotsWanted | None = None


class Leases:
    """The leases of one distributor.

    Args:
        host: where its clusters are.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._leases: dict[str, _Lease] = {}

    def open(self, adapter: DirectClusterDistributor) -> None:
        """Take a cluster in before it starts; if it shares, it runs nothing yet."""
        pool = adapter.pool()
        if pool is not None:
            self._leases[adapter.cluster_name] = _Lease(adapter, f"{self._host}:{pool}", adapter.slots())
            adapter.limit(0.0)

    def wanted(self, state: DistributorState) -> dict[str, SlotsWanted]:
        """Return what the next request says."""
        return {name: self._tell(name, lease, state) for name, lease in self._leases.items()}

    def _tell(self, name: str, lease: _Lease, state: DistributorState) -> SlotsWanted:
        lease.told = self._now(name, lease, state)
        return lease.told

    @staticmethod
    def _now(name: str, lease: _Lease, state: DistributorState) -> SlotsWanted:
        demand = state.demand(name, lease.total)
        held = max(demand.in_use, lease.adapter.limit_in_force())
        return SlotsWanted(
            pool=lease.pool,
            total=lease.total,
            version=lease.version,
            held=min(held, lease.total),
            wanted=demand.wanted,
            head=demand.head,
        )

    def farewell(self, state: DistributorState) -> dict[str, SlotsWanted]:
        """Return what the last request says: nothing will be started any more."""
        return {
            name: SlotsWanted(
                pool=lease.pool, total=0.0, version=lease.version, held=state.demand(name, lease.total).in_use
            )
            for name, lease in self._leases.items()
        }

    def must_tell(self, state: DistributorState) -> bool:
        """Whether a request is due although there is nothing else to say."""
        return any(self._is_news(name, lease, state) for name, lease in self._leases.items())

    def _is_news(self, name: str, lease: _Lease, state: DistributorState) -> bool:
        told = lease.told
        if told is None or lease.granted is None or lease.granted + _FRACTION >= lease.total:
            return False
        now = self._now(name, lease, state)
        return (
            now.version != told.version
            or now.held < told.held - _FRACTION
            or now.wanted > told.wanted + _FRACTION
            or now.head > told.head + _FRACTION
        )

    def hear(self, granted: Mapping[str, SlotsGranted], state: DistributorState) -> None:
        """Take the server's answer; a server that says nothing of a cluster does not lease it."""
        for name, lease in self._leases.items():
            answer = granted.get(name)
            if answer is None:
                if lease.granted is None:
                    self._set(lease, lease.total, state)
            elif lease.granted is None or answer.version > lease.version:
                lease.version = answer.version
                self._set(lease, min(answer.cores, lease.total), state)

    @staticmethod
    def _set(lease: _Lease, cores: float, state: DistributorState) -> None:
        lease.granted = cores
        lease.adapter.limit(cores)
        state.set_slots(lease.adapter.cluster_name, cores)
