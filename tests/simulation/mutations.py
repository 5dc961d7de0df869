"""`python -m tests.simulation.mutations [NAME ...]`: check that the simulation detects deliberate faults in the code.

Each mutation is made in a copy of the sources. Prints the first seed with a violation. Exits with 1 if a mutation is
not detected within the number of seeds that CI runs, or no longer applies because the code has changed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.__main__ import SEEDS_DEFAULT

SOURCES = Path(__file__).parents[2] / "src"
SEEDS_PER_STEP = 30
STEP_SECONDS_MAX = 900.0


@dataclass(frozen=True)
class Mutation:
    """One mutation: a replacement of text in each file."""

    what: str
    changes: tuple[tuple[str, str, str], ...]


MUTATIONS = {
    "replay": Mutation(
        "a repeated sync does not get the same work again",
        (("server/usecases/launching.py", "_handed_out(tx, workflow_id, key) if key else []", "[]"),),
    ),
    "stale": Mutation(
        "an attempt that has ended still changes its task",
        (
            (
                "server/transitions/attempts.py",
                "if verdict is Verdict.LEGAL:\n            self._move(attempt",
                "if verdict is Verdict.LEGAL or target == TI.DONE != attempt.status:\n            self._move(attempt",
            ),
            ("server/transitions/attempts.py", "        if attempt.is_newest:\n", "        if True:\n"),
        ),
    ),
    "given-up": Mutation(
        "the sender of heartbeats for an attempt that was declared lost is not told to terminate it",
        (
            ("server/usecases/reporting.py", " + ended_of(tx, request.alive),", ","),
            (
                "server/usecases/reporting.py",
                '            and_(any_of(ti.id, "alive"), ti.status.not_in(transitions.LIVE)),\n',
                "",
            ),
        ),
    ),
    "agent-given-up": Mutation(
        "an agent is not told to terminate attempts that were declared lost",
        (
            (
                "server/usecases/agents.py",
                "return orders + (ended_of(tx, request.running) if request.running else [])",
                "return orders",
            ),
            ("server/usecases/agents.py", "has = request.running or []", "has: list[int] = []"),
        ),
    ),
    "agent-inventory": Mutation(
        "an agent does not get the content of a lost response again",
        (("server/usecases/agents.py", "    missing = _missing(tx, row, request)\n", "    missing: list[Any] = []\n"),),
    ),
    "queue-fence": Mutation(
        "a replaced run may queue attempts",
        (
            (
                "server/usecases/queueing.py",
                "    if not run.may_queue:\n        raise StaleRun",
                "    if False:\n        raise StaleRun",
            ),
        ),
    ),
    "armed-fence": Mutation(
        "the armed tasks of a run are queued although the run is over or was replaced",
        (
            (
                "server/usecases/queueing.py",
                "    if not run.may_queue:\n        return []",
                "    if False:\n        return []",
            ),
            ("server/transitions/runs.py", "        tx.armed.forget(run.workflow_id, run.id)\n", "        pass\n"),
        ),
    ),
    "armed-upstreams": Mutation(
        "an armed task is queued when the first of its upstream tasks is done",
        (("server/armed.py", "                if not mine.missing[task_id]:\n", "                if True:\n"),),
    ),
    "armed-work": Mutation(
        "an armed task is queued by a distributor that accepts no work: its client may be gone",
        (("server/usecases/reporting.py", " if moves.due and accepts_work else []", " if moves.due else []"),),
    ),
    "armed-limit": Mutation(
        "an armed task is queued after a limit has changed that its orchestrator does not know yet",
        (("server/usecases/queueing.py", " and one.seen >= run.limits_changed_at", ""),),
    ),
    "armed-failure": Mutation(
        "an armed task of a run with fail_fast is queued after a task has failed",
        (("server/usecases/queueing.py", "    if not armed.fail_fast:\n", "    if True:\n"),),
    ),
    "armed-seen": Mutation(
        "a task is queued by a request, or by arming, that is older than its last change",
        (("server/transitions/bulk.py", '        unindexed(t.status_at) <= param("seen"),\n', ""),),
    ),
    "armed-disarm": Mutation(
        "a disarmed task is queued",
        (
            (
                "server/armed.py",
                "            mine.remove(task_id)\n        mine.floor",
                "            pass\n        mine.floor",
            ),
        ),
    ),
    "armed-floor": Mutation(
        "a repeated request to arm arms tasks that were disarmed since",
        (("server/armed.py", "task.seen <= mine.floor or not has_room", "not has_room"),),
    ),
    "armed-count": Mutation(
        "the orchestrator does not count armed tasks",
        (("client/swarm/state.py", "self._in_flight + len(self.armed))", "self._in_flight)"),),
    ),
    "armed-wait": Mutation(
        "the orchestrator reuses the capacity of a task before the server has disarmed it",
        (
            (
                "client/swarm/services/scheduler.py",
                "            answer = await self._gateway.queue_task_batches(\n",
                "            self._state.armed.release(disarm)\n            disarm = []\n"
                "            answer = await self._gateway.queue_task_batches(\n",
            ),
        ),
    ),
    "charge": Mutation(
        "an attempt that was killed for a resume is charged",
        (("core/retry.py", "        Cause.KILLED_FOR_RESUME,\n", ""),),
    ),
    "epoch-fence": Mutation(
        "a replaced distributor gets work",
        (
            (
                "server/leadership.py",
                "if newest_run == run_id and newest_epoch == epoch:",
                "if True:",
            ),
        ),
    ),
    "pause": Mutation(
        "queued attempts are handed out although the workflow is paused",
        (("server/usecases/launching.py", "    left, room = limits.room(tx, run_id), ", "    left, room = None, "),),
    ),
    "register-fence": Mutation(
        "a replaced distributor may register again",
        (
            (
                "server/usecases/launching.py",
                "if newest_run is not None and (newest_run > run.id or request.epoch not in (0, last)):",
                "if False:",
            ),
        ),
    ),
    "reports": Mutation(
        "reports that may not have arrived are not sent again",
        (("distributor/outbox.py", "self._waiting.extendleft(reversed(self.in_flight))", "pass"),),
    ),
    "start-fence": Mutation(
        "a worker starts its command although its attempt has ended",
        (
            (
                "server/usecases/reporting.py",
                "if moves.late or moves.refused:\n            over = ",
                "if False:\n            over = ",
            ),
        ),
    ),
    "take-again": Mutation(
        "a packed job that did not receive its tasks gets other ones",
        (("server/usecases/packed_jobs.py", "    if not key or job.request_key != key:\n", "    if True:\n"),),
    ),
    "job-gone": Mutation(
        "a packed job that was declared gone and reappears gets tasks",
        (("server/usecases/packed_jobs.py", "if job.ended_at is not None:  # it was", "if False:  # it was"),),
    ),
    "job-kill": Mutation(
        "a packed job is not told which of its tasks were declared lost",
        (
            ("server/packed.py", "    if not alive:\n        return told\n", "    if True:\n        return told\n"),
            (
                "server/usecases/packed_jobs.py",
                "[], moves, FileHandout(tx), kill=list(request.alive), over=True)",
                "[], moves, FileHandout(tx), over=True)",
            ),
        ),
    ),
    "no-job-left": Mutation(
        "tasks wait for packed jobs although none is left",
        (
            (
                "server/usecases/packed_batches.py",
                "    if live:\n        return\n    for batch_id in batches:",
                "    if True:\n        return\n    for batch_id in batches:",
            ),
        ),
    ),
    "two-look": Mutation(
        "several distributors poll a cluster at the same time",
        (("server/usecases/watching.py", "is_old and not row.is_looked_at(tx.now, request.holder)", "is_old"),),
    ),
    "old-view": Mutation(
        "after a failed poll the previous view counts as new",
        (("server/usecases/watching.py", "request.known and not row.problem else None", "request.known else None"),),
    ),
    "silent-look": Mutation(
        "a distributor that should poll but does not respond is never replaced",
        (("server/usecases/watching.py", "(None, holder) and now < self.expires_at", "(None, holder)"),),
    ),
    "accounting": Mutation(
        "a job counts as lost as soon as its outcome is unknown",
        (("distributor/classic.py", "        if now - since >= seconds:\n", "        if True:\n"),),
    ),
    "spool": Mutation(
        "the undelivered reports of a worker are not kept",
        (("agent/journal.py", "        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)\n", ""),),
    ),
    "answered": Mutation(
        "every response below 500 counts as recorded",
        (
            (
                "agent/settlement.py",
                "        return FAULTY if kind else DOUBTED\n    return KEPT\n",
                "        return SETTLED\n    return SETTLED if status < 500 else KEPT\n",
            ),
        ),
    ),
}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; by default all: {', '.join(MUTATIONS)}")
    parser.add_argument("--seeds", type=int, default=SEEDS_DEFAULT, help="how many seeds each may take")
    options = parser.parse_args()
    unnoticed = []
    for name in options.names or MUTATIONS:
        found = first_violation(MUTATIONS[name], options.seeds)
        sys.stdout.write(f"{name:16} {found or 'UNNOTICED'}\n")
        sys.stdout.flush()
        if not found:
            unnoticed.append(name)
    return 1 if unnoticed else 0


def first_violation(mutation, seeds):
    """Return the first seed with a violation, and the violation; "" if there is none."""
    with tempfile.TemporaryDirectory(prefix="jobmon-mutation-") as folder:
        sources = Path(folder, "src")
        shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__", "static"))
        for path, old, new in mutation.changes:
            apply(sources / "jobmon" / path, old, new)
        for first in range(0, seeds, SEEDS_PER_STEP):
            told = simulate(sources, first, min(SEEDS_PER_STEP, seeds - first))
            if found := re.search(r"^seed (\d+): .*\n  violated: (.*)", told, re.MULTILINE):
                return f"seed {found[1]:>3}: {found[2]}"
    return ""


def apply(file, old, new):
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"{file.name} has {text.count(old)} times {old!r}: bring the mutation up to date.")
    file.write_text(text.replace(old, new), encoding="utf-8")


def simulate(sources, first, count):
    command = [sys.executable, "-m", "tests.simulation", "--first", str(first), "--seeds", str(count)]
    env = {**os.environ, "PYTHONPATH": str(sources)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=STEP_SECONDS_MAX, check=False)
    if "simulations " not in ended.stdout:
        raise SystemExit(f"The simulation did not run: {ended.stderr[-2000:]}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
