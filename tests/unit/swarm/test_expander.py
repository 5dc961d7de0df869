"""When a call of an expansion is retried that the server did not move to RUNNING."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.services.expander import Caller, Expander
from jobmon.client.swarm.state import SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.swarm.threads import Threads
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.expanding import CallResponse

SECONDS_MAX = 10
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class NeverCalled(Caller):
    """Functions that are never called."""


class Refusing:
    """A server that has changed something which the request does not know yet."""

    def __init__(self, state, *, shows_it_meanwhile):
        self._state = state
        self._shows_it_meanwhile = shows_it_meanwhile

    async def call_expansion(self, task_id, seen):
        if self._shows_it_meanwhile:
            self._state.last_sync = NOW  # as the answer to a poll does
        return CallResponse(status=TaskStatus.REGISTERING.value, calls=1)


@pytest.mark.parametrize("shows_it_meanwhile", [True, False])
async def test_a_refused_expansion_waits_for_changes_only_if_none_came_meanwhile(shows_it_meanwhile):
    state = SwarmState(workflow_id=1, workflow_run_id=10, dag_id=5)
    state.add_array(SwarmArray(1, 2, "one"))
    expansion = SwarmTask(1, 1, TaskStatus.REGISTERING, 3, None, None, is_expansion=True)
    state.add_task(expansion)
    state.enqueue_task(expansion)
    has_ended = asyncio.Event()
    gateway = Refusing(state, shows_it_meanwhile=shows_it_meanwhile)
    expander = Expander(state, gateway, NeverCalled(), lambda update: None, has_ended.set, Threads())
    expander.start_calls()
    async with asyncio.timeout(SECONDS_MAX):
        await has_ended.wait()
    assert (list(state.ready_to_call), expander.has_refused) == (
        ([expansion], False) if shows_it_meanwhile else ([], True)
    )
    assert not state.calling
    expander.retry_refused()
    assert list(state.ready_to_call) == [expansion]
