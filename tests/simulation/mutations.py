"""`python -m tests.simulation.mutations [NAME ...]`: check that deliberate faults in the code are detected.

Each mutation is made in a copy of the sources. It is detected by the tests that it names; or by the simulation, of
which the first seed with a violation is printed. A name stands for all mutations that begin with it. Exits with 1 if a
mutation is not detected within the number of seeds that CI runs or within its time, or no longer applies because the
code has changed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.__main__ import SEEDS_DEFAULT

SOURCES = Path(__file__).parents[2] / "src"
ROOT = SOURCES.parent
SEEDS_PER_STEP = 30
#: Longest time for one mutation, unless `--seconds` says otherwise.
MUTATION_SECONDS_MAX = 900.0
TESTS_FAILED = 1  # exit code of pytest
SERVER, SWARM = "tests/integration/server", "tests/integration/swarm/test_armed.py"


@dataclass(frozen=True)
class Mutation:
    """One mutation: a replacement of text in each file.

    `seed`: the last that detected it, tried first. `tests`: those that detect it; without any, all seeds are searched.
    """

    what: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...] = ()
    seed: int | None = None


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
                "or_(ti.status == TI.KILL_SELF.value, ti.status.not_in(transitions.LIVE))",
                "ti.status == TI.KILL_SELF.value",
            ),
        ),
    ),
    "agent-given-up": Mutation(
        "an agent is not told to terminate attempts that were declared lost",
        (
            (
                "server/usecases/agents.py",
                "kill=ended_of(tx, request.running or ()),",
                "kill=[],",
            ),
            ("server/usecases/agents.py", "kill=request.running or [], over=True", "kill=[], over=True"),
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
        tests=(f"{SERVER}/test_armed.py::test_a_run_that_is_over_queues_nothing",),
    ),
    "armed-upstreams": Mutation(
        "an armed task is queued when the first of its upstream tasks is done",
        (("server/armed.py", "                if not mine.missing[task_id]:\n", "                if True:\n"),),
        tests=(f"{SERVER}/test_armed.py::test_a_task_is_queued_with_its_last_missing_upstream_task_and_not_before",),
        seed=6,
    ),
    "armed-work": Mutation(
        "an armed task is queued by a distributor that accepts no work: its client may be gone",
        (("server/usecases/reporting.py", " if moves.due and accepts_work else []", " if moves.due else []"),),
        tests=(f"{SERVER}/test_armed.py::test_a_report_that_asks_for_no_work_queues_nothing",),
    ),
    "armed-agent-work": Mutation(
        "an armed task is queued by an agent that accepts no work: its client may be gone",
        (("server/usecases/agents.py", " if accepts_work and reported.due else []", " if reported.due else []"),),
        tests=(f"{SERVER}/test_agents.py::test_a_draining_agents_report_fires_nothing",),
    ),
    "armed-limit": Mutation(
        "an armed task is queued after a limit has changed that its orchestrator does not know yet",
        (("server/usecases/queueing.py", " and one.seen >= run.limits_changed_at", ""),),
        tests=(f"{SERVER}/test_armed.py::test_a_limit_that_the_orchestrator_does_not_know_holds_back_what_it_armed",),
    ),
    "armed-failure": Mutation(
        "an armed task of a run with fail_fast is queued after a task has failed",
        (("server/usecases/queueing.py", "    if not armed.fail_fast:\n", "    if True:\n"),),
        tests=(f"{SERVER}/test_armed.py::test_after_a_permanent_failure_a_run_that_fails_fast_queues_nothing",),
    ),
    "armed-failed": Mutation(
        "a task stays armed although an upstream task has failed permanently",
        (
            (
                "server/transitions/attempts.py",
                "            armed.failed(workflow_id, task_ids)\n",
                "            pass\n",
            ),
        ),
        tests=(f"{SERVER}/test_armed.py::test_what_a_permanent_failure_releases_makes_room_for_others",),
    ),
    "armed-possible": Mutation(
        "a task is armed that is in flight already",
        (("server/usecases/queueing.py", "is_possible = one.task_id in waiting and ", "is_possible = "),),
        tests=(f"{SERVER}/test_armed.py::test_a_task_that_has_changed_since_is_not_queued",),
    ),
    "armed-seen": Mutation(
        "a task is queued by a request, or by arming, that is older than its last change",
        (("server/transitions/bulk.py", '        unindexed(t.status_at) <= param("seen"),\n', ""),),
        tests=(f"{SERVER}/test_armed.py::test_a_task_that_has_changed_since_is_not_queued",),
    ),
    "armed-release": Mutation(
        "a hold, an edit, a new priority or a status set by hand leaves tasks armed",
        (
            (
                "server/armed.py",
                "        mine = self._set(workflow_id)\n        mine.clear()\n",
                "        mine = self._set(workflow_id)\n",
            ),
        ),
        tests=(
            f"{SERVER}/test_armed.py::test_a_person_who_sets_the_status_of_a_task_disarms_the_workflow",
            "tests/unit/server/test_armed.py::test_what_was_sent_before_a_release_arms_nothing",
        ),
    ),
    "armed-rollback": Mutation(
        "what a failed transaction armed stays armed",
        (("server/transaction.py", "        self.armed.rollback()\n", ""),),
        tests=(f"{SERVER}/test_armed.py::test_what_a_failed_transaction_armed_is_not_armed",),
    ),
    "armed-restart": Mutation(
        "a request that was sent before the server was restarted arms tasks",
        (("server/armed.py", "            self._floor = last_stamp\n", "            self._floor = -1\n"),),
        tests=("tests/unit/server/test_armed.py::test_what_was_sent_before_the_server_started_arms_nothing",),
    ),
    "armed-run": Mutation(
        "a task that an earlier run armed is queued for the next run",
        (
            (
                "server/armed.py",
                "            mine.clear()\n            mine.run_id = run_id",
                "            mine.run_id = run_id",
            ),
        ),
        tests=("tests/unit/server/test_armed.py::test_another_run_begins_with_nothing_armed",),
    ),
    "armed-room": Mutation(
        "more tasks are armed than the bound allows",
        (("server/armed.py", "task.seen <= mine.floor or not has_room", "task.seen <= mine.floor"),),
        tests=("tests/unit/server/test_armed.py::test_so_many_are_armed_and_no_more",),
    ),
    "armed-sets": Mutation(
        "a set that was dropped because there are too many is armed again by an older request",
        (
            (
                "server/armed.py",
                "            self._floor = max(self._floor, oldest.floor)\n",
                "            del oldest\n",
            ),
        ),
        tests=("tests/unit/server/test_armed.py::test_the_least_recently_used_set_is_dropped_and_cannot_come_back",),
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
        tests=(
            f"{SERVER}/test_armed.py::test_a_disarmed_task_is_not_queued_and_cannot_be_armed_by_an_older_request",
            "tests/property/test_armed.py",
        ),
    ),
    "armed-floor": Mutation(
        "a repeated request to arm arms tasks that were disarmed since",
        (("server/armed.py", "task.seen <= mine.floor or not has_room", "not has_room"),),
        tests=(f"{SERVER}/test_armed.py::test_a_disarmed_task_is_not_queued_and_cannot_be_armed_by_an_older_request",),
    ),
    "armed-count": Mutation(
        "the orchestrator does not count armed tasks",
        (("client/swarm/state.py", "self._in_flight + len(self.armed))", "self._in_flight)"),),
        tests=("tests/unit/swarm/test_arming.py::test_an_armed_task_counts_as_in_flight",),
        seed=54,
    ),
    "armed-array-count": Mutation(
        "the orchestrator does not count the armed tasks of an array",
        (("client/swarm/state.py", " + self.armed.of_array(array_id))", ")"),),
        tests=("tests/unit/swarm/test_arming.py",),
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
        tests=(f"{SWARM}::test_capacity_is_reused_only_after_the_server_has_disarmed",),
    ),
    "armed-lost": Mutation(
        "the orchestrator waits for armed tasks that the server has lost",
        (("client/swarm/orchestrator.py", "        self._scheduler.release_lost()\n", ""),),
        tests=(f"{SWARM}::test_a_lost_set_in_the_middle_of_a_run_is_noticed",),
    ),
    "armed-ready": Mutation(
        "the orchestrator queues a task that is armed, too",
        (
            (
                "client/swarm/state.py",
                "                if is_ready and waiting not in self.armed:\n",
                "                if is_ready:\n",
            ),
        ),
        tests=("tests/unit/swarm/test_arming.py::test_a_task_that_was_lost_is_ready",),
    ),
    "armed-callable": Mutation(
        "a task is armed whose resources are determined only when it is queued",
        (
            (
                "client/swarm/arming.py",
                "task.compute_resources_callable is not None or resources is None",
                "resources is None",
            ),
        ),
        tests=("tests/unit/swarm/test_arming.py::test_a_task_with_a_callable_or_without_a_bound_request_is_not_armed",),
    ),
    "armed-in-flight": Mutation(
        "a task is armed whose upstream task is neither in flight nor armed",
        (
            (
                "client/swarm/arming.py",
                "            if each.status in IN_FLIGHT or each in self._armed or each in queued\n",
                "",
            ),
        ),
        tests=("tests/unit/swarm/test_arming.py::test_an_upstream_task_that_is_to_be_retried_is_not_in_flight",),
    ),
    "armed-downstream": Mutation(
        "the orchestrator counts tasks as armed that wait for a failed one",
        (
            (
                "client/swarm/arming.py",
                "            self.release(lost)\n            pending += lost",
                "            pending += []",
            ),
        ),
        tests=("tests/unit/swarm/test_arming.py::test_what_waits_for_a_failed_task_is_armed_no_longer",),
    ),
    "armed-waiting": Mutation(
        "tasks are armed while a ready task waits for capacity",
        (("client/swarm/planning.py", "    if state.has_waiting or chosen.is_full:\n", "    if False:\n"),),
        tests=("tests/unit/swarm/test_arming.py",),
    ),
    "expansion-lead": Mutation(
        "a replaced run may call functions and record what they return",
        (
            (
                "server/usecases/expanding.py",
                "    if not run.may_queue or workflow_id not in",
                "    if workflow_id not in",
            ),
        ),
        tests=(f"{SERVER}/test_expansions.py::test_a_run_that_ended_can_neither_call_nor_add",),
    ),
    "expansion-abandon": Mutation(
        "an expansion whose client died during the call is not called again",
        (
            (
                "server/transitions/expansions.py",
                "    arrays = tx.column(_abandon_expansions, workflow=workflow_id, stamp=tx.stamp)\n",
                "    arrays: list[int] = []\n",
            ),
        ),
        tests=(f"{SERVER}/test_expansions.py::test_a_run_that_ended_can_neither_call_nor_add",),
    ),
    "expansion-fan-in": Mutation(
        "what waits for an expansion does not wait for the tasks that it adds",
        (
            (
                "server/usecases/expanding.py",
                '    tx.insert_many(upstream_set_member, ("upstream_set_id", "node_id"), rows, ignore=True)\n',
                "    del rows\n",
            ),
        ),
        seed=0,
    ),
    "expansion-own": Mutation(
        "tasks that an expansion adds wait for each other",
        (
            (
                "server/usecases/expanding.py",
                '            or_(u.origin_id.is_(None), u.origin_id != param("expansion")),\n',
                "",
            ),
        ),
        seed=0,
    ),
    "expansion-grow": Mutation(
        "the orchestrator forgets what an expansion has added",
        (("client/swarm/services/expander.py", "            state.grow(task, growth.tasks, growth.upstreams)\n", ""),),
        seed=0,
    ),
    "expansion-limits": Mutation(
        "an expansion that is called by ID resets the limit of the template that it uses",
        (("client/expanding.py", "keep_limits=True", "keep_limits=False"),),
        tests=(
            "tests/integration/client/test_expansions.py::"
            "test_a_resume_by_id_keeps_the_limit_of_the_template_that_an_expansion_uses",
        ),
    ),
    "rerun-dependents": Mutation(
        "a request that does not know of a rerun queues a task downstream of it",
        (("server/usecases/steering.py", "    if reopened and active_runs(tx, workflow_id):\n", "    if False:\n"),),
        tests=(
            f"{SERVER}/test_holding.py::test_a_request_that_does_not_know_of_a_reopened_upstream_task_queues_nothing",
        ),
    ),
    "rerun-live": Mutation(
        "tasks whose attempts are running are not rerun",
        (("server/usecases/steering.py", "        moves.move(attempt.id, wanted, cause=Cause.KILLED)\n", ""),),
        tests=(
            f"{SERVER}/test_holding.py::"
            "test_an_attempt_that_finishes_although_it_was_stopped_for_a_rerun_leaves_its_task_to_be_rerun",
        ),
    ),
    "rerun-finished": Mutation(
        "a task is done although its attempt was stopped for a rerun",
        (
            (
                "server/transitions/attempts.py",
                "    if wanted is TaskStatus.DONE and attempt.is_outdated:\n",
                "    if False:\n",
            ),
        ),
        tests=(
            f"{SERVER}/test_holding.py::"
            "test_an_attempt_that_finishes_although_it_was_stopped_for_a_rerun_leaves_its_task_to_be_rerun",
        ),
    ),
    "edit-recall": Mutation(
        "an attempt that was queued before an edit runs the edited command",
        (
            (
                "server/usecases/editing.py",
                "    recalled = recall_tasks(tx, workflow_id, ids)\n",
                "    recalled = 0\n",
            ),
        ),
        seed=78,
    ),
    "edit-lost": Mutation(
        "a resume resets edits",
        (
            (
                "server/revisions.py",
                "keeps = [was is not None and was == new for was, new in",
                "keeps = [False for was, new in",
            ),
        ),
        seed=6,
    ),
    "skip-live": Mutation(
        "tasks are skipped although their attempts run",
        (
            ("server/usecases/steering.py", "        require_skippable(rows)\n", "        pass\n"),
            (
                "server/transitions/bulk.py",
                '**requested)\n        .where(*_changeable(), ~has_live_attempt("live"))',
                '**requested)\n        .where(*_changeable(), ~has_live_attempt("live") | has_live_attempt("live"))',
            ),
        ),
        seed=78,
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
            ("server/packed.py", "return told + ended_of(session, alive)", "return told"),
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
    parser.add_argument("--seconds", type=float, default=MUTATION_SECONDS_MAX, help="longest time for each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of parallel simulations")
    options = parser.parse_args()
    begins = tuple(options.names or [""])
    if unknown := [one for one in begins if not any(name.startswith(one) for name in MUTATIONS)]:
        parser.error(f"no mutation begins with {', '.join(unknown)}; there are {', '.join(MUTATIONS)}")
    unnoticed = []
    for name, mutation in MUTATIONS.items():
        if name.startswith(begins):
            found = detected(mutation, options.seeds, time.monotonic() + options.seconds, options.workers)
            sys.stdout.write(f"{name:17} {found or 'UNNOTICED'}\n")
            sys.stdout.flush()
            if not found:
                unnoticed.append(name)
    return 1 if unnoticed else 0


def detected(mutation, seeds, until, workers):
    """Return the test that failed, or the first seed with a violation and the violation; "" if there is none."""
    with tempfile.TemporaryDirectory(prefix="jobmon-mutation-") as folder:
        sources = Path(folder, "src")
        shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__", "static"))
        for path, old, new in mutation.changes:
            apply(sources / "jobmon" / path, old, new)
        steps = [(first, min(SEEDS_PER_STEP, seeds - first)) for first in range(0, seeds, SEEDS_PER_STEP)]
        for first, count in [(mutation.seed, 1)] * (mutation.seed is not None) + steps * (not mutation.tests):
            told = simulate(sources, first, count, until, workers)
            if found := re.search(r"^seed (\d+): .*\n  violated: (.*)", told, re.MULTILINE):
                return f"seed {found[1]:>3}: {found[2]}"
            if time.monotonic() >= until:
                break
        return failed_test(sources, mutation.tests, until) if mutation.tests else ""


def failed_test(sources, tests, until):
    """Run tests until one fails; return its name, or "" if none does."""
    status, told = python(sources, until, "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    found = re.search(r"^FAILED (\S+)", told, re.MULTILINE)
    if (status == TESTS_FAILED) != (found is not None) or status not in (0, TESTS_FAILED):
        raise SystemExit(f"The tests did not run: {told[-2000:]}")
    return found[1] if found else ""


def python(sources, until, *arguments):
    """Run a module on other sources; return its exit code and output, an empty one if the time was not sufficient."""
    command = [sys.executable, "-m", *arguments]
    env = {**os.environ, "PYTHONPATH": str(sources)}
    seconds = max(1.0, until - time.monotonic())
    try:
        ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return 0, ""
    return ended.returncode, ended.stdout + ended.stderr


def apply(file, old, new):
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"{file.name} has {text.count(old)} times {old!r}: bring the mutation up to date.")
    file.write_text(text.replace(old, new), encoding="utf-8")


def simulate(sources, first, count, until, workers):
    """Simulate seeds; return the output, or "" if the time was not sufficient."""
    options = ("--first", str(first), "--seeds", str(count), "--workers", str(min(workers, count)))
    _, told = python(sources, until, "tests.simulation", *options)
    if told and "simulations " not in told:
        raise SystemExit(f"The simulation did not run: {told[-2000:]}")
    return told


if __name__ == "__main__":
    sys.exit(main())
