"""`python -m tests.chaos [--rounds N] [--seed S] [--crash-points] [--show NAME]`: inject faults and count losses."""

import argparse
import contextlib
import random
import sys

from tests.chaos import crash_points, rounds
from tests.chaos.shows import AWAY_SECONDS, SHOWS
from tests.chaos.world import FILES
from tests.databases import CRASH_SAFE, POSTGRESQL, SQLITE, PostgreSQL, PostgreSQLDatabases


@contextlib.contextmanager
def databases_of(dialect):
    """The databases of the rounds and, for PostgreSQL, the server that has them."""
    if dialect == SQLITE:
        yield FILES, None
        return
    engine = PostgreSQL(**CRASH_SAFE)
    try:
        engine.start()
        databases = PostgreSQLDatabases(engine.address)
        databases.make_template()
        yield databases, engine
    finally:
        engine.remove()


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="workflows with random faults")
    parser.add_argument("--seed", type=int, help="the same seed chooses the same faults (moments differ)")
    parser.add_argument(
        "--database",
        choices=(SQLITE, POSTGRESQL),
        default=SQLITE,
        help="where the rounds are recorded; PostgreSQL is killed, stopped and restarted, too",
    )
    parser.add_argument("--crash-points", action="store_true", help="also die at every commit and submission")
    parser.add_argument("--some-crash-points", action="store_true", help="only die at a few of them")
    parser.add_argument("--show", choices=SHOWS, help="only one of the stories with figures")
    parser.add_argument("--away-seconds", type=float, default=AWAY_SECONDS, help="how long the server is away there")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # so that output redirected to a file appears at once
    if options.some_crash_points:
        return 0 if crash_points.run_some() else 1
    if options.show:
        settings = {"away_seconds": options.away_seconds} if options.show == "away" else {}
        return 0 if SHOWS[options.show](**settings) else 1
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    with databases_of(options.database) as (databases, engine):
        total = rounds.run(options.rounds, seed, databases, engine)
    rounds.report(total)
    is_clean = total.is_clean
    if options.crash_points:
        is_clean = crash_points.run_all() and is_clean
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
