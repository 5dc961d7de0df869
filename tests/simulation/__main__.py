"""`python -m tests.simulation --seeds N [--seed S] [--workers W]`: simulate the whole system, by seed.

Prints a summary and every violation with its seed; exits with 1 if there is a violation. `--seed S` runs one seed and
prints its trace, which is the same every time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.simulation.system.world import Verdict, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SEEDS_DEFAULT: Final = 300
SEEDS_PER_CHUNK: Final = 5
VIOLATIONS_SHOWN_MAX: Final = 20
TRACE_LINES_MAX: Final = 60


@dataclass(slots=True)
class Summary:
    """Totals over all simulations."""

    runs: int = 0
    seconds: float = 0.0
    requests: int = 0
    tasks: int = 0
    executions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violating: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Add one simulation."""
        self.runs += 1
        self.seconds += verdict.seconds
        self.requests += verdict.requests
        self.tasks += verdict.tasks
        self.executions += verdict.executions
        self.faults += verdict.faults
        if verdict.violations:
            self.violating.append(verdict)

    def lines(self) -> Iterator[str]:
        """Yield the lines to print."""
        yield f"simulations        {self.runs}"
        yield f"virtual hours      {self.seconds / 3600:.1f}"
        yield f"tasks              {self.tasks}"
        yield f"executions         {self.executions}"
        yield f"requests           {self.requests}"
        yield f"faults injected    {self.faults.total()}"
        for kind, count in sorted(self.faults.items()):
            yield f"  {kind:<26} {count}"
        yield f"violating seeds    {len(self.violating)}"
        for verdict in self.violating[:VIOLATIONS_SHOWN_MAX]:
            yield from told(verdict)


def told(verdict: Verdict) -> Iterator[str]:
    """Yield the violations of a simulation and its trace."""
    yield ""
    yield f"seed {verdict.seed}: replay with: python -m tests.simulation --seed {verdict.seed}"
    for violation in verdict.violations:
        yield f"  violated: {violation}"
    first = next((at for at, line in enumerate(verdict.trace) if "VIOLATION" in line), len(verdict.trace))
    for line in verdict.trace[max(0, first - TRACE_LINES_MAX) : first + 1]:
        yield f"    {line}"


def summarize(verdicts: Iterable[Verdict]) -> Summary:
    """Add up simulations."""
    summary = Summary()
    for verdict in verdicts:
        summary.add(verdict)
    return summary


def simulate_all(seeds: Sequence[int], workers: int) -> Summary:
    """Run simulations in parallel."""
    if workers <= 1:
        return summarize(map(simulate, seeds))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return summarize(pool.map(simulate, seeds, chunksize=SEEDS_PER_CHUNK))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulations; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS_DEFAULT, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of parallel processes")
    arguments = parser.parse_args(argv)
    if arguments.seed is not None:
        verdict = simulate(arguments.seed)
        sys.stdout.write("\n".join([*verdict.trace, *verdict.violations, ""]))
        return 1 if verdict.violations else 0
    started = time.monotonic()
    summary = simulate_all(range(arguments.first, arguments.first + arguments.seeds), arguments.workers)
    sys.stdout.write("\n".join([*summary.lines(), ""]))
    sys.stdout.write(f"real seconds       {time.monotonic() - started:.1f}\n")
    return 1 if summary.violating else 0


if __name__ == "__main__":
    sys.exit(main())
