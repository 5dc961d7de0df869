"""Crash points: the server dies before and after each commit, the distributor before and after each submission.

A host agent dies before and after it starts each command. The workflow is small, so that every point can be tried. The
process that died is restarted without a crash point; a client that exited resumes. Each trial must end with every task
done and no task run to completion twice, except for commands that ran while their agent died: their outcome is unknown.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

from tests.chaos import ledger
from tests.chaos.world import HERE, SETTINGS, World, wait_for

TASKS = 10
TASK_SECONDS = 0.05
TRIAL_SECONDS_MAX = 60.0
RESUMES_MAX = 3
POINTS_MAX = 400
#: There are no random faults here, so a missing heartbeat need not be detected quickly.
CALM = {**SETTINGS, "JOBMON__HEARTBEAT__WORKFLOW_RUN_INTERVAL": "2", "JOBMON__HEARTBEAT__TASK_INSTANCE_INTERVAL": "1"}
WHO = (("server", "chain_and_fan"), ("agent", "chain_and_fan"), ("distributor", "mixed"), ("distributor", "shed"))

SOME = (
    ("server", "chain_and_fan", ("after:21",)),
    ("agent", "chain_and_fan", ("after:3",)),
    ("distributor", "mixed", ("after:2",)),
    ("distributor", "shed", ("after:2",)),
)


class Trial:
    """One workflow in which one process dies at one crash point."""

    def __init__(self, part, shape, point):
        self.world = World(CALM, CHAOS_POINT=point, CHAOS_MARK="mark")
        self.world.environment["CHAOS_MARK"] = str(self.world.folder / "mark")
        if part != "server":
            self.world.environment |= {"CHAOS_FIRST_RUNNER": str(HERE / "doomed.py"), "CHAOS_PART": part}
        self._part, self._shape = part, shape
        #: Whether the crash point was reached; valid after `run`.
        self.has_died = False

    def run(self):
        """Run the trial; return a description of what went wrong."""
        server = self._start_server() if self._part == "server" else None
        code = self._run_client()
        if server is not None:
            self._forget(server)
        self.has_died = (self.world.folder / "mark").exists()
        problems = [] if code == 0 else [f"the client ended with {code}"]
        problems += [f"left over: {one}" for one in self.world.orphans()]
        found = ledger.count(self.world, ledger.Struck(agent=self._part == "agent"))
        problems += [f"lost: {one}" for one in found.lost] + [f"repeated: {one}" for one in found.repeated]
        problems += [f"ran twice: {window}" for window in found.explained if self._part != "agent"]
        if not problems:
            self.world.remove()
        return [f"{one} ({self.world.folder})" for one in problems]

    def _start_server(self):
        server = self.world.start([str(HERE / "doomed.py"), "server"], "server.log")
        access = self.world.folder / "data" / "server.json"
        wait_for(lambda: access.exists() or server.poll() is not None)
        return server

    def _forget(self, server):
        if server.poll() is None:
            server.terminate()
        server.wait()

    def _run_client(self):
        for how in ([], *[["hot"], ["cold"]] * RESUMES_MAX):
            client = self.world.client("crash", self._shape, TASKS, TASK_SECONDS, *how)
            if wait_for(lambda client=client: client.poll() is not None, TRIAL_SECONDS_MAX) is not True:
                client.kill()
            if client.wait() == 0:
                return 0
        return client.returncode


def run_points(part, shape, points, say=print):
    """Try points until there are no more; return their number and what went wrong."""
    tried, problems = 0, []
    for point in points:
        trial = Trial(part, shape, point)
        begin = time.monotonic()
        found = trial.run()
        seconds = time.monotonic() - begin
        problems += [f"{part}, {shape}, {point}: {one}" for one in found]
        if found:
            say(f"  {part}, {shape}, {point}: {seconds:.1f} s, NOT CLEAN")
        if not trial.has_died:
            break
        tried += 1
    return tried, problems


def run_some(say=print):
    """Try a few points at the same time, as part of every test run; return whether all trials succeeded."""
    problems = []
    with ThreadPoolExecutor(len(SOME)) as pool:
        trials = [pool.submit(run_points, part, shape, points, say) for part, shape, points in SOME]
    for (part, shape, points), trial in zip(SOME, trials, strict=True):
        tried, found = trial.result()
        problems += found
        if tried < len(points):
            problems.append(f"{part}, {shape}: there were only {tried} of the points {points}")
    for one in problems:
        say(f"! {one}")
    return not problems


def run_all(say=print):
    """Try every point; return whether all trials succeeded."""
    everything = []
    for part, shape in WHO:
        begin = time.monotonic()
        count = 0
        for when in ("before", "after"):
            points = (f"{when}:{number}" for number in itertools.count(1))
            tried, problems = run_points(part, shape, itertools.islice(points, POINTS_MAX), say)
            count += tried
            everything += problems
        what = {"server": "commits", "agent": "starts of commands"}.get(part, f"submissions ({shape})")
        say(f"{part}: {count} crash points around {what}, {time.monotonic() - begin:.0f} s")
    for one in everything:
        say(f"! {one}")
    say(f"crash points that did not end well       {len(everything):5}")
    return not everything
