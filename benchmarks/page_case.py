"""The case `page`: the figures of the web page's design, measured by `benchmarks.page`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

MIB: Final = 2**20


class Wanted(NamedTuple):
    """How a measured value is shown: unit, required value, and the factor from what was measured."""

    unit: str
    due: float | None = None
    factor: float = 1.0
    at_least: bool = False


#: By the name that `benchmarks.page` prints; "switch", "server" and "search" are several. Due are the figures of the
#: design of the page (section 5), and a bound on the server's memory.
WANTED: Final = {
    "first_figures": Wanted("s", 1.0),
    "switch": Wanted("s", 0.3),
    "server": Wanted("s CPU"),
    "again": Wanted("s", 0.3),
    "filter FATAL": Wanted("s", 0.3),
    "search": Wanted("s", 1.0),
    "age": Wanted("s", 2.0),
    "share: no page": Wanted("% of a core", factor=100),
    "share: one page": Wanted("% of a core", 3.0, 100),
    "share: ten readers": Wanted("% of a core", 5.0, 100),
    "per change: no page": Wanted("us"),
    "per change: with ten / without": Wanted("x", 1.03),
    "frames: idle": Wanted("/s", 50, at_least=True),
    "frames: run": Wanted("/s", 30, at_least=True),
    "page bytes": Wanted("MB", 150, 1 / MIB),
    "server bytes": Wanted("MB", 300, 1 / MIB),
    "counters: per transaction": Wanted("us"),
    "counters: share": Wanted("% of CPU", 3.0, 100),
}


def page(bench: Bench) -> list[Figure]:
    """Use the page in Chromium while 1,000 of 1,000,000 tasks change per second, with nine more readers or without."""
    tasks = bench.size(1_000_000, 100_000)
    found = bench.script("page", "--tasks", str(tasks))
    return [
        Figure(
            case="page",
            key=name,
            what=f"{tasks:,} tasks: {name.replace('_', ' ')}",
            value=value * wanted.factor,
            unit=wanted.unit,
            due=wanted.due,
            at_least=wanted.at_least,
        )
        for name, value in found.items()
        if (wanted := WANTED.get(name) or WANTED[name.partition(":")[0]])
    ]
