"""The attempts that a program has claimed: start, retry, kill, judge, report."""

import errno

import pytest

from jobmon.agent import locations, outcome, settlement
from jobmon.agent.attempts import RUNNING, Attempt
from jobmon.agent.outbox import Outbox
from jobmon.agent.running import RUNNING_DELAY_SECONDS, Running
from jobmon.agent.starting import Launch, NotStarted
from jobmon.agent.trouble import LocationTrouble
from jobmon.agent.work import Work

PATIENCE_SECONDS = 100.0
RETURNED = "not started here"


class Usage:
    ru_maxrss = ru_inblock = ru_oublock = 0
    ru_utime = ru_stime = 0.0


class Commands:
    """Commands that run until they are told to exit."""

    def __init__(self):
        self.live, self.fresh, self.ended, self.is_folder_there = {}, [], [], True

    def start(self, launch):
        attempt = self.live[launch.identity] = Attempt(launch)
        if self.is_folder_there:
            attempt.start(1000 + launch.identity, 0.0, 0.0, 0.0)
            self.fresh.append(attempt)
        else:
            why = NotStarted("no folder", locations.DIRECTORY, errno.ENOENT, launch.directory)
            attempt.fail(why, 0.0)
            self.ended.append(self.live.pop(launch.identity))

    def look(self):
        """Everything has happened already."""

    def exit(self, identity, code=0):
        attempt = self.live.pop(identity)
        attempt.exit(code << 8, Usage, 1.0)
        attempt.clear()
        self.ended.append(attempt)

    def stop(self, identities, cause, grace_seconds):
        for identity in identities:
            self.live[identity].stop(cause, grace_seconds, 0.0)

    def take_started(self):
        fresh, self.fresh = self.fresh, []
        return fresh

    def take_ended(self):
        ended, self.ended = self.ended, []
        return ended

    def next_look(self):
        return None


class World:
    def __init__(self, cores=2.0):
        self.now, self.commands, self.outbox = 0.0, Commands(), Outbox()
        trouble = LocationTrouble(PATIENCE_SECONDS)
        work = Work(cores, 8.0, cores)
        self.running = Running(
            self.commands, work, self.outbox, trouble, lambda: self.now, "host", "/logs", 1.0, RETURNED, {"job": 7}
        )

    def take(self, *identities, counted=()):
        self.running.take([launch(one) for one in identities], counted)
        self.running.start()

    def advance(self):
        self.running.look()
        self.running.start()
        self.running.report_ends()

    def reports(self):
        return [(one["task_instance_id"], one["status"], one.get("cause")) for one in self.outbox.all]


def launch(identity):
    return Launch(identity, ["true"], {}, "/gone", 0o22, "/dev/null")


@pytest.fixture
def world():
    return World()


def test_what_fits_is_started_and_each_end_makes_room(world):
    world.take(1, 2, 3)
    assert list(world.commands.live) == [1, 2]
    world.commands.exit(1)
    world.commands.exit(2, 3)
    world.advance()
    assert list(world.commands.live) == [3]
    assert sorted(world.reports()) == [(1, "D", None), (2, "E", outcome.EXIT_CODE)]
    assert {one["job"] for one in world.outbox.all} == {7}
    assert world.running.ended_count == 2
    world.running.work.validate()


def test_freed_cores_are_used_before_a_success_is_reported_but_after_a_failure_is(world):
    """A failure may show that nothing more should be started here."""
    seen = []
    world.running.doubt = lambda attempt: seen.append(list(world.commands.live))
    start = world.commands.start

    def noted(launch):
        seen.append(world.reports())
        start(launch)

    world.take(1, 2, 3, 4)
    world.commands.start = noted
    world.commands.exit(1)
    world.advance()
    assert seen == [[]]
    world.commands.exit(2, 3)
    world.advance()
    assert seen == [[], [3], [(1, "D", None), (2, "E", outcome.EXIT_CODE)]]


def test_a_command_is_reported_as_running_if_it_lasts_and_the_server_does_not_count_it_so(world):
    world.take(1, 2, counted=[2])
    world.running.report_running(RUNNING_DELAY_SECONDS / 2)
    assert world.reports() == []
    assert world.running.due() == [RUNNING_DELAY_SECONDS]
    world.running.report_running(RUNNING_DELAY_SECONDS)
    assert world.reports() == [(1, "R", None)]
    assert world.running.due() == []


def test_what_its_location_keeps_from_starting_waits_and_one_is_tried_at_a_time(world):
    world.commands.is_folder_there = False
    world.take(1, 2, 3)
    assert world.reports() == []
    assert [one.identity for one in world.running.work.waiting] == [1, 2, 3]
    (due,) = world.running.due()
    world.commands.is_folder_there, world.now = True, due
    world.running.start()
    assert list(world.commands.live) == [1, 2]
    world.running.work.validate()


def test_patience_ends(world):
    world.commands.is_folder_there = False
    world.take(1)
    world.now = PATIENCE_SECONDS
    world.running.start()
    assert world.reports() == [(1, "F", outcome.NOT_STARTED)]


def test_who_closes_gives_back_what_waits_and_what_could_not_be_started(world):
    world.take(1, 2, 3)
    world.running.close()
    world.take(4)
    assert world.reports() == [(3, "U", outcome.WORKER_LOST), (4, "U", outcome.WORKER_LOST)]
    assert list(world.commands.live) == [1, 2]


def test_what_is_to_be_killed_is_ended_wherever_it_is(world):
    world.take(1, 2)
    world.commands.exit(2)
    world.advance()
    world.running.take([launch(3)])
    world.running.kill([1, 2, 3, 9])
    assert world.reports() == [(2, "D", None), (3, "E", outcome.KILLED), (9, "E", outcome.KILLED)]
    assert world.commands.live[1].cause == outcome.KILLED
    assert world.commands.live[1].state != RUNNING
    world.running.kill([1, 3])
    assert len(world.reports()) == 3, "the order came twice"
    world.outbox.take()
    world.running.settle(settlement.SETTLED, [])
    assert world.running.ordered == {1}


def test_killing_a_hundred_thousand_waiting_attempts_is_one_pass(world):
    """A separate pass for each of them took minutes."""
    count = 100_000
    world.take(*range(count))
    world.running.kill(range(1, count))
    assert len(world.outbox) == count - 2
    assert list(world.commands.live) == [0, 1]
    world.running.work.validate()


def test_why_a_command_failed_with_its_job_is_for_the_cluster_to_say(world):
    world.take(1, 2)
    world.running.is_ended_from_outside = True
    world.commands.exit(1, 3)
    world.commands.exit(2)
    world.advance()
    assert world.reports() == [(2, "D", None)]
