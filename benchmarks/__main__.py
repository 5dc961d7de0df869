"""`python -m benchmarks [--quick] [--case NAME] [--peers] [--guard] [--record]`: run the cases, print a table."""

from __future__ import annotations

import argparse
import sys

from benchmarks import figures as kept
from benchmarks.bench import Bench
from benchmarks.cases import CASES, ON_REQUEST
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
    figures: list[kept.Figure] = []
    try:
        for name in options.case or CASES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures += {**CASES, **ON_REQUEST}[name](bench)
    finally:  # an interrupted run keeps what it has
        kept.show(figures)
        print(f"kept as {kept.keep(kept.record_of(figures, bench.runs, options.quick))}")
    if options.peers:
        race.run(bench)
    if options.record:
        kept.keep_as_baseline(figures, options.quick)
    return _guard(figures, options.quick) if options.guard else 0


def _guard(figures: list[kept.Figure], quick: bool) -> int:
    worse = kept.worse_than_recorded(figures, kept.baseline().get("quick" if quick else "full", {}))
    for line in worse:
        print(f"worse than recorded: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
