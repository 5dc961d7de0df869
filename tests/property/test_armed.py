"""The server's armed tasks against a simple model: a dictionary that is searched each time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobmon.server.armed import ArmedSets, ArmedTask

WORKFLOW, RUN, START = 1, 10, 100
TASKS = st.integers(1, 12)
STAMPS = st.integers(START - 2, START + 12)


class Armed(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.sets = ArmedSets()
        self.sets.begin(START)
        self.missing: dict[int, set[int]] = {}
        self.floor = START

    @rule(task_id=TASKS, missing=st.sets(TASKS, min_size=1, max_size=4), seen=STAMPS)
    def arm(self, task_id, missing, seen):
        is_armed = self.sets.arm(WORKFLOW, ArmedTask(task_id, RUN, 5, 7, seen), sorted(missing))
        assert is_armed == (seen > self.floor)
        if is_armed:
            self.missing[task_id] = set(missing)

    @rule(task_ids=st.sets(TASKS, max_size=3), stamp=STAMPS)
    def disarm(self, task_ids, stamp):
        self.sets.disarm(WORKFLOW, RUN, task_ids, stamp)
        self.floor = max(self.floor, stamp)
        for task_id in task_ids:
            self.missing.pop(task_id, None)

    @rule(task_ids=st.sets(TASKS, max_size=4))
    def done(self, task_ids):
        expected = {task_id for task_id, missing in self.missing.items() if missing <= task_ids}
        due = self.sets.done(WORKFLOW, sorted(task_ids))
        assert len(due) == len(expected)
        assert {one.task_id for one in due} == expected
        self.missing = {
            task_id: missing - task_ids for task_id, missing in self.missing.items() if task_id not in expected
        }

    @rule(task_id=TASKS)
    def failed(self, task_id):
        self.sets.failed(WORKFLOW, [task_id])
        lost = {task_id}
        while more := {one for one, missing in self.missing.items() if missing & lost}:
            lost |= more
            self.missing = {one: missing for one, missing in self.missing.items() if one not in more}

    @rule(stamp=STAMPS)
    def release(self, stamp):
        self.sets.release(WORKFLOW, stamp)
        self.floor = max(self.floor, stamp)
        self.missing.clear()

    @rule()
    def begin(self):
        self.sets.begin()

    @invariant()
    def the_same_tasks_are_armed(self):
        assert set(self.sets.armed(WORKFLOW)) == set(self.missing)


TestArmed = Armed.TestCase
