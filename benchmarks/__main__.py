"""`python -m benchmarks [--quick] [--case NAME] [--peers] [--guard] [--record]`: run the cases, print a table."""

from __future__ import annotations

import argparse
import sys

from benchmarks import figures as kept
from benchmarks.bench import Bench
from benchmarks.cases import CASE_NUMBERS, CASES, ON_REQUEST
from benchmarks.peers import race


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, less than three minutes in all")
    parser.add_argument("--case", choices=[*CASES, *ON_REQUEST], action="append", help="only this case (repeatable)")
    parser.add_argument("--peers", action="store_true", help="also run other tools on P1, P2 and P3, beside ours")
    parser.add_argument("--guard", action="store_true", help="fail when a ratio is worse than the recorded one by 2")
    parser.add_argument("--record", action="store_true", help="make these the figures that --guard compares with")
    options = parser.parse_args()
    bench = Bench(options.quick)
    names = options.case or list(CASES)
    figures: list[kept.Figure] = []
    try:
        for name in names:
            figures += _run(name, bench)
    finally:  # an interrupted run keeps its figures so far
        kept.show(figures)
        print(f"kept as {kept.keep(kept.record_of(figures, bench.runs, options.quick))}")
    if options.peers:
        race.run(bench)
    if options.record:
        kept.keep_as_baseline(figures, options.quick)
    return _guard(names, figures, bench) if options.guard else 0


def _run(name: str, bench: Bench) -> list[kept.Figure]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    return {**CASES, **ON_REQUEST}[name](bench)


def _guard(names: list[str], figures: list[kept.Figure], bench: Bench) -> int:
    """Return failure if a ratio is far worse than the recorded one in every run of its case."""
    recorded = kept.baseline().get("quick" if bench.quick else "full", {})
    worse = kept.worse_than_recorded(figures, recorded)
    for _ in range(kept.GUARD_TRIES - 1):
        for line in worse.values():
            print(f"worse than recorded: {line}; run again", file=sys.stderr)
        cases = {name.split()[0] for name in worse}
        again = [figure for name in names if CASE_NUMBERS.get(name) in cases for figure in _run(name, bench)]
        still = kept.worse_than_recorded(again, recorded)
        worse = {name: line for name, line in still.items() if name in worse}
    for line in worse.values():
        print(f"worse than recorded, {kept.GUARD_TRIES} times: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
