"""Rounds: run a workflow, inject faults at random times, resume until it is done, then count losses."""

import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
from tests.chaos import ledger
from tests.chaos.world import FILES, World, wait_for

#: Shape of the workflow -> targets of faults. Rounds cycle through the shapes. "takeover": another client resumes while
#: this one is alive ("stop": while this one is suspended).
PARTS = {
    "mixed": ("server", "client", "distributor", "agent", "worker", "takeover"),
    "local": ("server", "client", "agent", "takeover"),
}
FAULTS_PER_ROUND = 6
#: While a database restarts or a standby takes over, clients are asked to pause for a second.
PATIENT = {"JOBMON__HEARTBEAT__TASK_INSTANCE_INTERVAL": "1.5"}
#: Of four rounds on PostgreSQL, those with two shared servers instead of an embedded one.
STANDBY_ROUNDS = (1, 2)
TASKS = 300
TASK_SECONDS = 0.1
#: The range extends beyond the heartbeat deadlines here (3.1 x 0.5 s and 3.1 x 0.4 s).
STOP_SECONDS = (1.0, 2.5)
#: An agent suspended for longer than this may be declared lost, with what its commands completed in the meantime.
AGENT_DEADLINE_SECONDS = 1.0
PAUSE_SECONDS = (0.3, 1.8)
ROUND_SECONDS_MAX = 180.0
CLIENT_RESTARTS_MAX = 40
SHOWN_MAX = 20
#: A client whose workflow was taken over exits within this time.
FORMER_END_SECONDS = 15.0


@dataclass
class Total:
    injected: Counter = field(default_factory=Counter)
    resumes: Counter = field(default_factory=Counter)
    lost: list = field(default_factory=list)
    repeated: list = field(default_factory=list)
    orphans: list = field(default_factory=list)
    explained: Counter = field(default_factory=Counter)
    causes: Counter = field(default_factory=Counter)
    lines: int = 0
    attempts: int = 0

    @property
    def is_clean(self):
        return not (self.lost or self.repeated or self.orphans)


@dataclass(frozen=True)
class Fault:
    part: str
    kind: str  # "kill", "stop", "restart"
    after_seconds: float
    stopped_seconds: float = 0.0


def plan(dice, parts):
    """Choose the faults of one round; the choice depends only on the random generator."""
    faults = []
    for _ in range(FAULTS_PER_ROUND):
        part, kind = dice.choice(parts), dice.choice(("kill", "stop", "restart"))
        faults.append(Fault(part, kind, dice.uniform(*PAUSE_SECONDS), dice.uniform(*STOP_SECONDS)))
    return faults


class Round:
    """One workflow from start to completion, with faults."""

    def __init__(
        self,
        shape,
        faults,
        dice,
        total,
        tasks=TASKS,
        say=lambda text: None,
        databases=FILES,
        engine=None,
        has_standby=False,
    ):
        self.world = World(databases=databases, has_standby=has_standby, **({} if engine is None else PATIENT))
        self._has_standby = has_standby
        self._engine = engine
        self._shape = shape
        self._faults, self._dice, self._total, self._tasks, self._say = faults, dice, total, tasks, say
        self._client = None
        self._former = []
        self._starts = 0
        self._stopped = []
        self._struck_attempts = set()
        self._struck_parts = set()

    def run(self):
        """Run the round; return whether nothing was lost, repeated or orphaned. The folder is kept if something was."""
        before = len(self._total.lost) + len(self._total.repeated) + len(self._total.orphans)
        self._begun = time.monotonic()
        self._deadline = time.monotonic() + ROUND_SECONDS_MAX
        self._start_client()
        if self._has_standby:  # two servers take longer to start than a plan of faults
            while not ledger.done_count(self.world) and self._pass(0.05):
                pass
        for fault in self._faults:
            if not self._pass(fault.after_seconds):
                break
            self._inflict(fault)
        self._finish()
        self._count()
        is_clean = before == len(self._total.lost) + len(self._total.repeated) + len(self._total.orphans)
        if is_clean:
            self.world.remove()
        return is_clean

    # -- the client --------------------------------------------------------------------------------------------

    def _start_client(self):
        how = [] if self._starts == 0 else [self._dice.choice(("cold", "hot"))]
        if how:
            self._total.resumes[how[0]] += 1
        self._starts += 1
        self._client = self.world.client("chaos", self._shape, self._tasks, TASK_SECONDS, *how)

    def _tend(self):
        """Resume if the client exited before the workflow was done; return False when all is done."""
        code = self._client.poll()
        if code is None:
            return True
        if code == 0 or self._starts > CLIENT_RESTARTS_MAX:
            return False
        self._start_client()
        return True

    def _pass(self, seconds):
        """Wait; return False when all is done or the round has taken too long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._wake()
            self.world.tend_servers()
            if not self._tend() or time.monotonic() > self._deadline:
                return False
            time.sleep(0.02)
        return True

    def _finish(self):
        while self._pass(0.2):
            pass
        self._wake(everybody=True)
        if self._client.poll() != 0:
            self._total.lost.append(f"the workflow did not come to its end ({self.world.folder})")
            with contextlib.suppress(OSError):
                self._client.kill()
        self._client.wait()
        for former in self._former:  # a client that does not exit is counted as an orphan
            wait_for(lambda former=former: former.poll() is not None, FORMER_END_SECONDS)

    # -- faults ------------------------------------------------------------------------------------------------

    def _inflict(self, fault):
        if fault.part == "takeover":
            self._take_over(fault)
            return
        if fault.part == "database":
            self._strike_database(fault)
            return
        victims = wait_for(lambda: self._victims(fault.part), 1.0)
        if not victims:
            self._total.injected[f"{fault.part}: no such process"] += 1
            return
        victim = self._dice.choice(sorted(victims, key=lambda process: process.pid))
        self._tell(fault)
        with contextlib.suppress(psutil.Error):
            words = victim.cmdline()
            if fault.kind == "stop":
                self._stop(victim, fault)
                if fault.part == "agent" and fault.stopped_seconds > AGENT_DEADLINE_SECONDS:
                    self._struck_parts.add("agent")
            else:
                victim.send_signal(signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
                self._note_struck(fault.part, words)
            self._total.injected[f"{fault.part}: {fault.kind}"] += 1

    def _victims(self, part):
        if part == "active server":
            return list(filter(None, [self.world.active_server()]))
        return self.world.of_part(part)

    def _take_over(self, fault):
        self._tell(fault)
        former = self._client
        if fault.kind == "stop":
            with contextlib.suppress(psutil.Error):
                self._stop(psutil.Process(former.pid), fault)
        self._former.append(former)
        self._start_client()
        self._total.injected[
            "takeover: " + ("of a stopped client" if fault.kind == "stop" else "of a live client")
        ] += 1

    def _strike_database(self, fault):
        self._tell(fault)
        self._engine.stop(signal.SIGQUIT if fault.kind == "kill" else signal.SIGINT)
        if fault.kind == "stop":
            time.sleep(fault.stopped_seconds)
        self._engine.start()
        self._total.injected[f"database: {fault.kind}"] += 1

    def _tell(self, fault):
        done, seconds = ledger.done_count(self.world), time.monotonic() - self._begun
        self._say(f"  {seconds:5.1f} s, {done} done: {fault.kind} {fault.part}")

    def _stop(self, victim, fault):
        victim.send_signal(signal.SIGSTOP)
        self._stopped.append((time.monotonic() + fault.stopped_seconds, victim))

    def _note_struck(self, part, words):
        if part == "worker":
            self._struck_attempts.add(int(words[words.index("--task-instance-id") + 1]))
        self._struck_parts.add(part)

    def _wake(self, everybody=False):
        for until, victim in list(self._stopped):
            if everybody or time.monotonic() >= until:
                self._stopped.remove((until, victim))
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(signal.SIGCONT)

    # -- the count ---------------------------------------------------------------------------------------------

    def _count(self):
        total, where = self._total, self.world.folder.name
        total.orphans += [f"{where}: {one}" for one in self.world.orphans()]
        struck = ledger.Struck(
            agent="agent" in self._struck_parts,
            attempts=frozenset(self._struck_attempts),
        )
        found = ledger.count(self.world, struck)
        total.lost += [f"{where}: {one}" for one in found.lost]
        total.repeated += [f"{where}: {one}" for one in found.repeated]
        total.explained += found.explained
        total.causes += found.causes
        total.lines += found.lines
        total.attempts += found.attempts


def run(rounds, seed, databases=FILES, engine=None, say=print):
    """Run rounds; return the total.

    Args:
        rounds: how many.
        seed: decides all faults.
        databases: where each round gets its database.
        engine: the PostgreSQL to strike, too; None where the database is a file.
        say: called with each line of output.
    """
    total = Total()
    for number in range(rounds):
        dice = random.Random(f"{seed}/{number}")
        shape = sorted(PARTS)[number % len(PARTS)]
        has_standby = engine is not None and number % 4 in STANDBY_ROUNDS
        more = () if engine is None else ("database", *(("active server",) * 2 if has_standby else ()))
        faults = plan(dice, (*PARTS[shape], *more))
        begin = time.monotonic()
        one = Round(shape, faults, dice, total, say=say, databases=databases, engine=engine, has_standby=has_standby)
        is_clean = one.run()
        verdict = "clean" if is_clean else f"NOT CLEAN, see {one.world.folder}"
        kind = f"{shape}, standby" if has_standby else shape
        say(f"round {number + 1} of {rounds} ({kind}, seed {seed}): {time.monotonic() - begin:.1f} s, {verdict}")
    return total


def report(total, say=print):
    """Print the counts."""
    say(f"\nfaults injected: {sum(count for what, count in total.injected.items() if 'no such process' not in what)}")
    for what, count in sorted(total.injected.items()):
        say(f"  {what:28} {count:5}")
    say(f"resumes: {total.resumes['cold']} cold, {total.resumes['hot']} hot")
    say(f"attempts {total.attempts}, commands completed {total.lines}")
    say(f"lost completions                         {len(total.lost):5}")
    say(f"repeats after an acknowledged success    {len(total.repeated):5}")
    say(f"orphans                                  {len(total.orphans):5}")
    for window, count in sorted(total.explained.items()):
        say(f"completed, not acknowledged, {window}: {count}")
    say(f"attempts that failed, by cause: {dict(total.causes)}")
    for ones in (total.lost, total.repeated, total.orphans):
        for one in ones[:SHOWN_MAX]:
            say(f"! {one}")
