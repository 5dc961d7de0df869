"""`python -m tests.fuzz [--minutes M] [--target NAME]`: feed malformed input to decoders; report failures."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from hypothesis import HealthCheck, Phase, given, settings
from tests.fuzz.inputs import inputs
from tests.fuzz.targets import TARGETS, Target

MINUTES = 5.0
#: Inputs between two looks at the clock.
ROUND_INPUTS = 200


def fuzz(target: Target, seconds: float) -> tuple[int, list[str]]:
    """Feed a target for so long; return how many inputs it got, and what broke it."""
    count = 0
    last = b""

    @settings(
        max_examples=ROUND_INPUTS,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target.seeds))
    def feed(content: bytes) -> None:
        nonlocal count, last
        count, last = count + 1, content
        try:
            target.run(content)
        except target.expected:
            return

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            feed()
        except Exception as error:
            return count, [f"{type(error).__name__}: {error}"[:300], repr(last)]
    return count, []


def main() -> int:
    """Fuzz; return 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all targets together")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], help="only this one")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # that requests are refused
    chosen = [target for target in TARGETS if options.target in (None, target.name)]
    total, broken = 0, 0
    for target in chosen:
        count, problems = fuzz(target, options.minutes * 60 / len(chosen))
        total += count
        broken += bool(problems)
        sys.stdout.write(f"{'BROKEN' if problems else 'ok':7} {count:9,} inputs  {target.name}\n")
        sys.stdout.writelines(f"        {problem}\n" for problem in problems)
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} targets, {total:,} inputs, {broken} broken\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
