"""Accessors of state, builder and updates that existing scripts use."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.core.constants import TaskStatus
from jobmon.core.requester import Requester


@pytest.fixture
def state():
    state = SwarmState(1, 2, 3, max_concurrently_running=5)
    for number, status in enumerate("GQRDF", 1):
        state.add_task(SwarmTask(number, 1, TaskStatus(status), 3, None, None))
    return state


def test_counts(state):
    assert (state.get_done_count(), state.get_failed_count(), state.get_active_task_count()) == (1, 1, 2)
    assert (state.get_percent_done(), state.get_available_capacity(), state.get_ready_to_run_count()) == (20.0, 3, 0)
    assert not state.all_tasks_final()
    state.apply_update(StateUpdate(task_statuses={1: "D", 2: "F", 3: "D"}))
    assert state.all_tasks_final()
    assert SwarmState(1, 2, 3).get_percent_done() == 100.0


def test_an_empty_update_is_false():
    assert StateUpdate.empty().is_empty
    assert not StateUpdate.empty()
    assert StateUpdate(task_statuses={1: "D"})
    assert StateUpdate(sync_time=datetime(2026, 1, 1, tzinfo=UTC))
    assert StateUpdate(max_concurrently_running=0)


def test_a_builder_shows_what_it_built(state):
    builder = SwarmBuilder(Requester("http://127.0.0.1:1"), 2)
    assert (builder.tasks, builder.arrays, builder.workflow_id, builder.dag_id) == ({}, {}, None, None)
    assert (builder.max_concurrently_running, builder.status) == (None, "B")
    builder._state = state
    assert (builder.tasks, builder.workflow_id, builder.dag_id) == (state.tasks, 1, 3)
    assert (builder.max_concurrently_running, builder.status) == (5, "B")
