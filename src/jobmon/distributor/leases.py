"""Cores that this workflow shares with others: the cores the server granted, and what is reported to it.

A cluster that shares cores starts nothing before it is granted some. Each request reports cores held and wanted; a
separate request is due only if cores are scarce and the server does not yet know what would help others or us.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.cluster_protocol import DirectClusterDistributor
from jobmon.core.texts import NAME_CHARACTERS_MAX
from jobmon.core.wire.launching import SlotsWanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.launching import SlotsGranted
    from jobmon.distributor.state import DistributorState

_FRACTION: Final = 1e-9


@dataclass(slots=True)
class _Lease:
    """The lease of one cluster. `granted` is None before the first response; `told` is what was last sent."""

    adapter: DirectClusterDistributor
    pool: str
    total: float
    granted: float | None = None
    version: int = 0
    told: SlotsWanted | None = None


class Leases:
    """Manage the leases of one distributor.

    Args:
        host: host of its clusters.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._leases: dict[str, _Lease] = {}

    def open(self, adapter: DirectClusterDistributor) -> None:
        """Register a cluster before it starts; if it shares cores, it runs nothing yet."""
        pool = adapter.pool()
        if pool is not None:
            self._leases[adapter.cluster_name] = _Lease(adapter, _pool_name(self._host, pool), adapter.slots())
            adapter.limit(0.0)

    def wanted(self, state: DistributorState) -> dict[str, SlotsWanted]:
        """Return the cores held and wanted, for the next request."""
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
        """Return the cores still held, for the last request: nothing more is started."""
        return {
            name: SlotsWanted(
                pool=lease.pool, total=0.0, version=lease.version, held=state.demand(name, lease.total).in_use
            )
            for name, lease in self._leases.items()
        }

    def must_tell(self, state: DistributorState) -> bool:
        """Return whether a request is due even if there is nothing else to send."""
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
        """Apply the granted cores; a server that omits a cluster does not lease it."""
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


def _pool_name(host: str, pool: str) -> str:
    """Return the name of a pool on a host; a name that is too long is truncated and ends with a digest."""
    name = f"{host}:{pool}"
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
    return f"{name[: NAME_CHARACTERS_MAX - len(digest) - 1]}:{digest}"
