"""What a job that runs many tasks asks for, and when."""

import pytest

from jobmon.worker_node.work import AHEAD_MAX, Work

JOB = {"width": 2}


def answer(*ids, over=False):
    tasks = {
        "task_instance_ids": list(ids),
        "task_ids": list(ids),
        "names": ["t"] * len(ids),
        "commands": ["true"] * len(ids),
        "attempts": [1] * len(ids),
    }
    return {"job": JOB, "tasks": tasks, "over": over, "kill": []}


@pytest.fixture
def work():
    work = Work()
    work.width = 2
    return work


def test_the_first_request_asks_for_what_can_start_and_a_little_more(work):
    assert work.wanted() == (2, 2)


@pytest.mark.parametrize(("seconds", "ahead"), [(10.0, 0), (0.25, 2), (0.05, 10), (0.0001, AHEAD_MAX)])
def test_the_shorter_tasks_are_the_more_are_taken_ahead(work, seconds, ahead):
    work.mean_seconds = seconds
    assert work.ahead() == ahead


def test_what_was_asked_for_at_once_counts_as_running_already(work):
    work.take(answer(1, 2, 3), (2, 2))
    assert [(task.identity, task.told_running) for task in work.queue] == [(1, True), (2, True), (3, False)]
    assert work.is_dry, "less came than was asked for"
    assert work.wanted() == (0, 0)


def test_an_answer_that_comes_twice_brings_nothing_twice(work):
    work.take(answer(1, 2, 3, 4), (2, 2))
    work.take(answer(3, 4), (2, 2))
    assert work.identities == [1, 2, 3, 4]


def test_work_that_is_enough_is_not_added_to(work):
    work.take(answer(1, 2, 3, 4), (2, 2))
    assert work.wanted() == (0, 0)
    assert not work.is_hungry()
    work.queue.popleft()
    work.queue.popleft()
    work.queue.popleft()
    assert work.wanted() == (1, 2)
    assert work.is_hungry()


def test_the_end(work):
    work.take(answer(1, over=True), (2, 2))
    assert not work.has_ended
    work.queue.popleft()
    assert work.has_ended
    assert work.wanted() == (0, 0)


def test_what_is_given_back_is_said_to_be_lost_and_not_to_have_begun(work):
    work.take(answer(1, 2), (2, 0))
    work.give_back()
    assert [(report["task_instance_id"], report["status"], report["cause"]) for report in work.reports] == [
        (1, "U", "worker lost"),
        (2, "U", "worker lost"),
    ]
    assert work.identities == []
