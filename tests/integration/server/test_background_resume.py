"""Resumes that an embedded server starts for its page: who may order one, and what becomes of the client."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import pytest
from server_world import Refused

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.run import BackgroundResumeRequest, BackgroundResumeResponse
from jobmon.core.wire.steering import HistoryResponse, TaskUpdateRequest, TaskUpdateResponse
from jobmon.server import background
from jobmon.server.background import Resumer


class Recorder:
    """Records for which workflows a client would be started."""

    def __init__(self):
        self.started = []

    async def resume(self, workflow_id):
        self.started.append(workflow_id)
        return BackgroundResumeResponse(is_running=True, message="It runs.")


@pytest.fixture
def resumer(world):
    recorder = Recorder()
    world.app.state.services = replace(world.app.state.services, resumer=recorder)
    return recorder


async def resume(flow, user="me"):
    route = f"/workflows/{flow.workflow_id}/background_resume"
    return await flow.world.post(route, BackgroundResumeResponse, BackgroundResumeRequest(user=user))


async def refusal(flow, **options):
    with pytest.raises(Refused) as refused:
        await resume(flow, **options)
    return refused.value


async def test_a_shared_server_names_the_command_instead(world):
    flow = await world.bound(1)
    refused = await refusal(flow)
    assert (refused.status, refused.kind) == (409, "InvalidRequest")
    assert f"jobmon workflow resume {flow.workflow_id}" in refused.message


async def test_a_resume_is_started_and_audited(world, resumer):
    flow = await world.bound(1)
    assert (await resume(flow)).is_running
    assert resumer.started == [flow.workflow_id]
    history = await world.get(f"/workflows/{flow.workflow_id}/history", HistoryResponse)
    assert (history.entries[0].action, history.entries[0].user) == ("resume in the background", "me")


async def test_a_workflow_that_runs_is_done_or_belongs_to_somebody_else_is_not_resumed(world, resumer):
    flow = await world.bound(1)
    assert "belongs to" in (await refusal(flow, user="another")).message
    run = await flow.start()
    await run.register()
    refused = await refusal(flow)
    assert (refused.status, refused.kind) == (409, "WorkflowVersionConflict")
    assert "Nothing was changed now" in refused.message
    done = await world.bound(1)
    request = TaskUpdateRequest(task_ids=done.task_ids, status="D", user="me")
    await world.post(f"/workflows/{done.workflow_id}/task_updates", TaskUpdateResponse, request)
    assert (await refusal(done)).kind == "WorkflowAlreadyComplete"
    assert resumer.started == []


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A program in place of our command: it says its arguments, once there is a file `go` with its exit code."""
    path = tmp_path / "client"
    go = tmp_path / "go"
    path.write_text(
        f'#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.02; done\necho "$JOBMON_DATA_DIR: $*"\nexit $(cat {go})\n'
    )
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))
    return go


async def test_what_the_client_said_is_passed_on(client, tmp_path):
    client.write_text("0")
    found = await Resumer(tmp_path).resume(7)
    assert found == BackgroundResumeResponse(
        is_running=True, message=f"{tmp_path}: -P -m jobmon workflow resume 7 --background"
    )


async def test_a_client_that_fails_is_an_error(client, tmp_path):
    client.write_text("1")
    with pytest.raises(InvalidRequest, match=r"Workflow 7 was not resumed\. .*resume 7"):
        await Resumer(tmp_path).resume(7)


async def test_a_slow_client_continues_and_is_not_started_twice(client, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "RESUME_SECONDS_MAX", 0.05)
    monkeypatch.setattr(background, "RESUMES_MAX", 1)
    resumer = Resumer(tmp_path)
    assert not (await resumer.resume(7)).is_running
    with pytest.raises(InvalidRequest, match="1 other workflow being resumed"):
        await resumer.resume(8)
    monkeypatch.setattr(background, "RESUME_SECONDS_MAX", 60)
    again = asyncio.create_task(resumer.resume(7))
    client.write_text("0")
    assert (await again).is_running
    assert (await resumer.resume(8)).message.endswith("resume 8 --background")
