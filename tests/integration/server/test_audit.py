"""The audit trail: who wrote what."""

from __future__ import annotations

import json

from server_world import CLUSTER
from tests.databases import change

from jobmon.core.credentials import Right
from jobmon.core.wire.agents import AgentRequest, AgentResponse
from jobmon.core.wire.run import TaskAttributesRequest
from jobmon.server.routes.table import ENDPOINTS

#: Writes whose rows record who made them and when, and heartbeats.
RECORDED_ELSEWHERE = {
    **{"/workflow_runs/{workflow_run_id:id}/sync": "attempts", "/workflow_runs/{workflow_run_id:id}/queue": "attempts"},
    "/workflow_runs/{workflow_run_id:id}/expansions/{task_id:id}/call": "expansions",
    **{"/workflow_runs/{workflow_run_id:id}/heartbeat": "runs", "/workflow_runs/{workflow_run_id:id}/status": "runs"},
    **{"/clusters/{name}/watch": "views of clusters", "/clusters/{name}/view": "views of clusters"},
    **{"/page/links": "nothing is written"},
    **{"/server/open_to_other_hosts": "the server's log"},
    "/workflows/{workflow_id:id}/complete_version": "its seal",
}
#: Parts of a version: its seal is in the trail.
STAGED = ("tasks", "definitions", "upstreams", "statuses", "versions")


def _entries(world):
    rows = world.rows("SELECT action, principal, workflow_id, details FROM audit ORDER BY id")
    return [(action, principal, workflow_id, json.loads(details)) for action, principal, workflow_id, details in rows]


async def test_definitions_and_registrations_are_in_the_trail(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    attributes = TaskAttributesRequest(attributes={"a": "1", "b": "2"})
    for task_id in bound.task_ids:
        await world.post(f"/tasks/{task_id}/attributes", dict, attributes)
    await world.post("/tools/1/versions", dict)
    agent = AgentRequest(
        workflow_run_id=run.id, cluster=CLUSTER, host="h", boot_id="b", pid=7, pid_start_time=1.5, key="k"
    )
    await world.post("/agents", AgentResponse, agent)
    found = _entries(world)
    assert {entry[1] for entry in found} == {"owner"}
    assert {"create tool", "create template version", "set cluster", "create resources"} <= {
        entry[0] for entry in found
    }
    of_workflow = {action: details for action, _, workflow_id, details in found if workflow_id == bound.workflow_id}
    assert of_workflow["create workflow"]["user"] == "me"
    assert of_workflow["define tasks"] == {"tasks": 3}
    assert of_workflow["finish definition"] == {"tasks": 3}
    assert of_workflow["set attributes"] == {"attributes": 6}, "consecutive requests are one entry"
    assert of_workflow["register distributor"]["run"] == of_workflow["register agent"]["run"] == run.id


async def test_what_changes_nothing_is_not_in_the_trail(world):
    await world.define()
    before = _entries(world)
    await world.define()
    assert [entry[0] for entry in _entries(world)[len(before) :]] == ["set cluster"]


async def test_entries_of_other_people_are_not_summed_up(world):
    bound = await world.bound(1)
    route, attributes = f"/tasks/{bound.task_ids[0]}/attributes", TaskAttributesRequest(attributes={"a": "1"})
    await world.post(route, dict, attributes)
    change(world.database_uri, "UPDATE audit SET principal = 'user bob' WHERE action = 'set attributes'")
    await world.post(route, dict, attributes)
    found = [entry[1:] for entry in _entries(world) if entry[0] == "set attributes"]
    assert [(principal, details) for principal, _, details in found] == [
        ("user bob", {"attributes": 1}),
        ("owner", {"attributes": 1}),
    ]


def test_every_route_that_writes_is_known_here():
    """A new one has to write to the trail, or be named above with the reason why it need not."""
    known = {*RECORDED_ELSEWHERE, *AUDITED}
    written = {one.path for one in ENDPOINTS if one.right >= Right.STEER and one.method != "GET"}
    staged = {
        path
        for path in written
        if path.startswith("/workflows/") and "/versions" in path and path.rpartition("/")[2] in STAGED
    }
    assert written - staged == known


_WORKFLOW, _RUN = "/workflows/{workflow_id:id}", "/workflow_runs/{workflow_run_id:id}"
AUDITED = {
    *("/tools", "/tools/{tool_id:id}/versions", "/tool_versions/{tool_version_id:id}/task_templates"),
    *("/clusters", "/clusters/{name}", "/task_resources", "/workflows", "/dags/{dag_id:id}/edges", "/agents"),
    *(f"{_WORKFLOW}/{name}" for name in ("arrays", "tasks", "redefined_tasks", "bound", "runs", "resume", "stop")),
    *(f"{_WORKFLOW}/{name}" for name in ("force_cleanup", "reset_tasks", "concurrency", "drop_version", "purge")),
    *(
        f"{_WORKFLOW}/{name}"
        for name in (
            "task_updates",
            "holds",
            "priorities",
            "edits",
            "adjustments",
            "background_resume",
            "arrays/{name}/concurrency",
            "versions/{number:id}/seal",
        )
    ),
    "/database/compact",
    f"{_RUN}/expansions/{{task_id:id}}/failed",
    *(f"{_RUN}/{name}" for name in ("terminate_task_instances", "triage", "distributors", "lead")),
    *("/tasks/{task_id:id}/attributes", "/arrays/{array_id:id}/concurrency", "/tokens/{token_id:id}", "/tokens"),
}
