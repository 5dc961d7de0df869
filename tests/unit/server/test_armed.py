from __future__ import annotations

import pytest

from jobmon.core.wire.swarm import ARMED_TASKS_MAX
from jobmon.server import armed
from jobmon.server.armed import ArmedSets, ArmedTask

WORKFLOW, RUN = 1, 10
START, SEEN = 100, 200


@pytest.fixture
def sets():
    made = ArmedSets()
    made.begin(START)
    return made


def task(task_id, seen=SEEN, run_id=RUN):
    return ArmedTask(task_id, run_id, 5, 7, seen)


def arm(sets, task_id, *missing, **values):
    return sets.arm(WORKFLOW, task(task_id, **values), missing)


def due(sets, *done):
    return [one.task_id for one in sets.done(WORKFLOW, done)]


def test_a_task_is_due_once_when_its_last_missing_upstream_task_is_done(sets):
    assert arm(sets, 3, 1, 2)
    assert due(sets, 1) == []
    assert due(sets, 2) == [3]
    assert due(sets, 1, 2) == []
    assert sets.armed(WORKFLOW) == []


def test_several_become_due_together_in_the_order_of_their_ids(sets):
    for task_id in (4, 3, 5):
        arm(sets, task_id, 1)
    arm(sets, 6, 1, 2)
    assert due(sets, 1) == [3, 4, 5]
    assert sets.armed(WORKFLOW) == [6]


def test_arming_again_replaces_what_it_waits_for(sets):
    arm(sets, 3, 1, 2)
    arm(sets, 3, 2)
    assert due(sets, 1) == []
    assert due(sets, 2) == [3]


def test_what_was_sent_before_the_server_started_arms_nothing(sets):
    assert not arm(sets, 3, 1, seen=START)
    assert due(sets, 1) == []


def test_what_was_sent_before_a_task_was_disarmed_arms_nothing(sets):
    arm(sets, 3, 1)
    sets.disarm(WORKFLOW, RUN, [3], SEEN)
    assert due(sets, 1) == []
    assert not arm(sets, 3, 1)
    assert arm(sets, 3, 1, seen=SEEN + 1)


@pytest.mark.parametrize("is_known", [True, False])
def test_what_was_sent_before_a_release_arms_nothing(sets, is_known):
    if is_known:
        arm(sets, 3, 1)
    sets.release(WORKFLOW, SEEN)
    assert sets.armed(WORKFLOW) == []
    assert not arm(sets, 3, 1)
    assert arm(sets, 3, 1, seen=SEEN + 1)


def test_a_failed_task_disarms_all_that_wait_for_it_also_through_others(sets):
    arm(sets, 2, 1)
    arm(sets, 3, 2, 9)
    arm(sets, 4, 9)
    sets.failed(WORKFLOW, [1])
    assert sets.armed(WORKFLOW) == [4]
    assert due(sets, 1, 2, 9) == [4]


def test_a_rollback_disarms_what_the_transaction_touched(sets):
    arm(sets, 3, 1)
    sets.arm(WORKFLOW + 1, task(8), [7])
    sets.begin()
    arm(sets, 4, 2)
    sets.rollback()
    assert (sets.armed(WORKFLOW), sets.armed(WORKFLOW + 1)) == ([], [8])


def test_another_run_begins_with_nothing_armed(sets):
    arm(sets, 3, 1)
    arm(sets, 4, 1, run_id=RUN + 1)
    assert due(sets, 1) == [4]
    arm(sets, 4, 2, run_id=RUN + 1)
    sets.forget(WORKFLOW, RUN)
    assert sets.armed(WORKFLOW) == [4]
    sets.forget(WORKFLOW, RUN + 1)
    assert sets.armed(WORKFLOW) == []


def test_so_many_are_armed_and_no_more(sets):
    for task_id in range(ARMED_TASKS_MAX):
        assert arm(sets, 1000 + task_id, 1)
    assert not arm(sets, 3, 1)
    assert arm(sets, 1000, 2)
    assert len(sets.armed(WORKFLOW)) == ARMED_TASKS_MAX


def test_the_least_recently_used_set_is_dropped_and_cannot_come_back(sets, monkeypatch):
    monkeypatch.setattr(armed, "ARMED_SETS_MAX", 2)
    sets.disarm(1, RUN, [], SEEN)
    for workflow_id in (2, 3):
        assert sets.arm(workflow_id, task(8), [7])
    assert not sets.arm(1, task(3), [2])
    assert sets.arm(1, task(3, seen=SEEN + 1), [2])
    assert sets.armed(2) == []
