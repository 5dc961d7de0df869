"""Groups of users: which roles they give, and who reads and controls whose workflows."""

from __future__ import annotations

import contextlib

import pytest
from msgspec import structs
from stream_world import SECONDS_MAX, Events
from test_principals import ADMINISTRATOR, HOLD, Browser, shared_server

from jobmon.core import wire
from jobmon.core.credentials import Right
from jobmon.core.wire import credentials as messages
from jobmon.core.wire.monitoring import WorkflowsResponse
from jobmon.core.wire.server import UsersResponse
from jobmon.server.roles import Members, Roles, Sharing
from jobmon.server.routes.table import ENDPOINTS
from jobmon.server.settings import Settings

ROLES = Roles(administrators=Members.of(["@admins"]), readers=Members.of(["@auditors"]))
TEAMS = {"ada": ["biology"], "bob": ["biology", "staff"], "eve": ["physics", "staff"]}


def running(uri: str, visibility: str, sharing_groups: tuple[str, ...] = ()):
    """Run a server with these rules of visibility."""
    return shared_server(Settings(database_uri=uri, roles=ROLES, sharing=Sharing.of(visibility, sharing_groups)))


async def user(shared, name, groups=None):
    request = messages.TokenRequest(user=name, label="", days=1.0, groups=groups)
    created = await shared.caller(ADMINISTRATOR).call("POST", "/tokens", messages.TokenResponse, request)
    return shared.caller(created.secret)


async def people(shared):
    """Return the callers by name, and the ID of the workflow of each."""
    callers = {name: await user(shared, name, groups) for name, groups in TEAMS.items()}
    workflows = {}
    for name in TEAMS:
        bound, *_ = await shared.running(name)
        workflows[name] = bound.workflow_id
    return callers, workflows


async def listed(caller) -> set[str]:
    found = await caller.call("GET", "/workflows?total=true", WorkflowsResponse)
    assert found.total == len(found.workflows)
    return {workflow.user for workflow in found.workflows}


@pytest.mark.parametrize(
    ("visibility", "sharing_groups", "seen"),
    [
        ("all", (), {"ada": "ada bob eve", "bob": "ada bob eve", "eve": "ada bob eve"}),
        ("group", (), {"ada": "ada bob", "bob": "ada bob eve", "eve": "bob eve"}),
        ("group", ("@biology", "@physics"), {"ada": "ada bob", "bob": "ada bob", "eve": "eve"}),
        ("own", (), {"ada": "ada", "bob": "bob", "eve": "eve"}),
    ],
)
async def test_users_read_what_the_setting_says_and_control_only_their_own(
    tmp_path, databases, visibility, sharing_groups, seen
):
    async with running(databases.uri(tmp_path), visibility, sharing_groups) as shared:
        callers, workflows = await people(shared)
        for reader, caller in callers.items():
            readable = set(seen[reader].split())
            assert await listed(caller) == readable, reader
            running_now = await caller.call("GET", "/server/users", UsersResponse)
            assert {one.workflow_id for one in running_now.users} == {workflows[name] for name in readable}
            for owner, workflow_id in workflows.items():
                expected = 200 if owner in readable else 403
                assert await caller.status("GET", f"/workflows/{workflow_id}/progress") == expected, (reader, owner)
                may_control = 200 if owner == reader else 403
                assert await caller.status("POST", f"/workflows/{workflow_id}/holds", HOLD) == may_control


RIGHTS = (Right.READ, Right.STEER)


async def test_no_route_shows_or_steers_a_hidden_workflow(tmp_path, databases):
    """Every route with an ID of a workflow, a run, an array, a task or an attempt."""
    async with running(databases.uri(tmp_path), "group") as shared:
        callers, workflows = await people(shared)
        hidden, hers = workflows["ada"], callers["eve"]
        rows = shared.world.rows(
            "SELECT t.id, t.array_id, ti.id, r.id FROM task t JOIN task_instance ti ON ti.task_id = t.id"
            f" JOIN workflow_run r ON r.workflow_id = t.workflow_id WHERE t.workflow_id = {hidden}"
        )
        ids = dict(zip(("task_id", "array_id", "task_instance_id", "workflow_run_id"), rows[0], strict=True))
        ids["workflow_id"] = hidden
        tried = set()
        for endpoint in (one for one in ENDPOINTS if one.right in RIGHTS):
            path = endpoint.path.replace("{name}", "t")
            for name, number in ids.items():
                path = path.replace(f"{{{name}:id}}", str(number))
            if path == endpoint.path or "{" in path:
                continue
            tried.add(endpoint.path.rpartition("}/")[2])
            message = {name: MESSAGES[name] for name in required(endpoint.body)}
            assert await hers.status(endpoint.method, path, message) == 403, path
        assert tried > {
            *("view", "stream", "template_graph", "critical_path", "edited_tasks", "graph", "revisions", "matrix"),
            *("expansions", "upstream_tasks", "adjustments", "background_resume", "holds", "concurrency"),
        }
        args = shared.world.rows(f"SELECT workflow_args_hash FROM workflow WHERE id = {hidden}")[0][0]
        tool = shared.world.rows("SELECT name FROM tool")[0][0]
        query = f"/recorded_workflow?tool_name={tool}&workflow_args_hash={args}"
        usage = f"/tools/{shared.world.rows('SELECT id FROM tool')[0][0]}/resource_usage"
        for message, expected in (({}, 200), ({"workflow_ids": [hidden]}, 403)):
            assert await hers.status("POST", usage, message) == expected
        files = f"/workflows/{workflows['eve']}/files?task_id={ids['task_id']}"
        both = f"/workflows?workflow_id={workflows['eve']}&workflow_id={hidden}"
        for path in (files, both, f"/workflows?workflow_id={hidden}"):
            assert await hers.status("GET", path) == 403, path
        assert await callers["bob"].status("GET", both) == 200
        assert await callers["bob"].status("GET", query) == 200
        assert await hers.status("GET", query) == 403


#: Values of fields without a default.
MESSAGES = {
    **{"task_ids": [1], "set_ids": [1], "status": "D", "action": "hold", "dag_id": 1, "user": "eve"},
    **{"priority": 1, "max_concurrently_running": 1},
}


def required(kind):
    """Return the names of a message's fields without a default."""
    return [field.name for field in (structs.fields(kind) if kind else ()) if field.required]


async def test_the_page_shows_what_its_user_may_read(tmp_path, databases):
    async with running(databases.uri(tmp_path), "group") as shared:
        callers, workflows = await people(shared)
        code = (await callers["ada"].call("POST", "/page/codes", messages.LinkResponse)).key
        pages = [Browser(shared, code)]
        for page in pages:
            _, content = await page.send("GET", "/workflows")
            assert {one.user for one in wire.decode(WorkflowsResponse, content).workflows} == {"ada", "bob"}
            assert await page.status("GET", f"/workflows/{workflows['eve']}/view") == 403
            assert await page.status("GET", f"/workflows/{workflows['bob']}/view") == 200
            if len(pages) == 1:
                _, content = await page.send("POST", "/page/session")
                pages.append(Browser(shared, wire.decode(messages.PageSession, content).key))
        page = pages[-1]
        assert await page.status("POST", f"/workflows/{workflows['bob']}/holds", HOLD) == 403
        assert await page.status("POST", f"/workflows/{workflows['ada']}/holds", HOLD) == 200


async def test_answers_are_not_shared_between_people_who_see_different_lists(tmp_path, databases):
    async with running(databases.uri(tmp_path), "own") as shared:
        callers, _ = await people(shared)
        assert [await listed(callers[name]) for name in ("ada", "bob", "ada")] == [{"ada"}, {"bob"}, {"ada"}]


@contextlib.asynccontextmanager
async def stream(shared, token, workflow_id):
    """Open a stream as a page does."""
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/api/v1/workflows/{workflow_id}/stream"
    async with shared.world.http.stream("GET", path, headers=headers, timeout=SECONDS_MAX) as response:
        assert response.status_code == 200
        yield Events(response)


async def test_a_stream_shows_each_reader_only_what_this_one_may_read(tmp_path, databases):
    async with running(databases.uri(tmp_path), "group") as shared:
        callers, workflows = await people(shared)
        for reader, hidden in (("eve", "ada"), ("ada", "eve")):
            async with stream(shared, callers[hidden].target.token, workflows[hidden]) as events:
                shown = await events.until("workflow", lambda message: True)
                assert {workflow.workflow_id for workflow in shown.workflows} == {workflows[hidden]}
                # Requests with the query of the stream, whose answer is there already.
                query = f"/workflows?workflow_id={workflows[hidden]}&counts=false"
                for path in (query, f"/workflows/{workflows[hidden]}/view", f"/workflows/{workflows[hidden]}/stream"):
                    assert await callers[reader].status("GET", path) == 403
                found = await callers["bob"].call("GET", query, WorkflowsResponse)
                assert found == shown


@pytest.mark.parametrize("leaver", ["ada", "bob"])
async def test_a_stream_ends_when_its_reader_may_no_longer_read_the_workflow(tmp_path, databases, leaver):
    async with running(databases.uri(tmp_path), "group") as shared:
        callers, workflows = await people(shared)
        token = callers["bob"].target.token
        async with stream(shared, token, workflows["ada"]) as events:
            assert await events.next() is not None
            await user(shared, leaver, [])
            while await events.next() is not None:
                pass
        assert await Browser(shared, token).status("GET", f"/workflows/{workflows['ada']}/stream") == 403


async def test_a_link_does_not_show_more_than_its_maker_sees(tmp_path, databases):
    async with running(databases.uri(tmp_path), "group") as shared:
        callers, workflows = await people(shared)
        status, content = await callers["ada"].send("POST", "/page/links", messages.LinkRequest())
        assert (status, b"--only" in content) == (403, True)
        for name, expected in (("ada", 200), ("bob", 403), ("eve", 403)):
            request = messages.LinkRequest(workflow_id=workflows[name])
            assert await callers["ada"].status("POST", "/page/links", request) == expected


async def test_no_link_is_made_for_a_workflow_that_another_user_may_create_later(tmp_path, databases):
    async with running(databases.uri(tmp_path), "own") as shared:
        callers, workflows = await people(shared)
        request = messages.LinkRequest(workflow_id=max(workflows.values()) + 1)
        assert await callers["eve"].status("POST", "/page/links", request) == 404


@pytest.mark.parametrize(("visibility", "is_named"), [("own", False), ("all", True)])
async def test_a_refusal_names_the_owner_only_to_those_who_may_read_the_workflow(
    tmp_path, databases, visibility, is_named
):
    async with running(databases.uri(tmp_path), visibility) as shared:
        callers, workflows = await people(shared)
        status, content = await callers["eve"].send("POST", f"/workflows/{workflows['ada']}/holds", HOLD)
        assert (status, b"ada" in content) == (403, is_named)


async def test_a_group_gives_a_role_to_every_token_of_its_members(tmp_path, databases):
    async with running(databases.uri(tmp_path), "all") as shared:
        first = await user(shared, "root")
        assert await first.status("DELETE", "/page/links") == 403
        await user(shared, "root", ["admins"])
        assert await first.status("DELETE", "/page/links") == 204
        found = await first.call("GET", "/tokens", messages.TokensResponse)
        assert [token.groups for token in found.tokens] == [["admins"], ["admins"]]
        await user(shared, "root", [])
        assert await first.status("DELETE", "/page/links") == 403
        trail = shared.world.rows("SELECT principal FROM audit WHERE action = 'set groups'")
        assert trail == [("owner",), ("owner",)]


async def test_groups_outlive_the_server(tmp_path, databases):
    uri = databases.uri(tmp_path)
    async with running(uri, "group") as shared:
        first = await user(shared, "root", ["admins"])
    async with running(uri, "group") as shared:
        assert await shared.caller(first.target.token).status("DELETE", "/page/links") == 204


async def test_only_an_administrator_names_groups(tmp_path, databases):
    async with running(databases.uri(tmp_path), "all") as shared:
        ada = await user(shared, "ada", ["biology"])
        for groups in (["admins"], ["biology"], []):
            request = messages.TokenRequest(user="", label="", groups=groups)
            status, content = await ada.send("POST", "/tokens", request)
            assert (status, b"only an administrator" in content) == (403, True)
        for groups in (["a" * 256], [str(number) for number in range(messages.GROUPS_MAX + 1)], ["\0"]):
            request = messages.TokenRequest(user="x", label="", groups=groups)
            assert await shared.caller(ADMINISTRATOR).status("POST", "/tokens", request) in (400, 422)


async def test_a_reader_by_role_opens_a_page_that_only_reads(tmp_path, databases):
    async with running(databases.uri(tmp_path), "own") as shared:
        _, workflows = await people(shared)
        auditor = await user(shared, "kim", ["auditors"])
        code = (await auditor.call("POST", "/page/codes", messages.LinkResponse)).key
        assert await Browser(shared, code).status("POST", "/page/codes") == 403
        status, content = await Browser(shared, code).send("POST", "/page/session")
        session = wire.decode(messages.PageSession, content)
        assert (status, session.can_steer, session.can_resume) == (200, False, False)
        page = Browser(shared, session.key)
        for reader in (auditor, page):
            assert await reader.status("GET", f"/workflows/{workflows['eve']}/progress") == 200
            assert await reader.status("POST", f"/workflows/{workflows['eve']}/holds", HOLD) == 403
            assert await reader.status("POST", "/page/links", messages.LinkRequest()) == 403
        assert await page.status("POST", "/page/codes") == 200
        (token,) = [one for one in await tokens(shared) if one.user == "kim"]
        assert await shared.caller(ADMINISTRATOR).status("DELETE", f"/tokens/{token.id}") == 204
        assert [await reader.status("GET", "/workflows") for reader in (auditor, page)] == [401, 401]


async def tokens(shared):
    return (await shared.caller(ADMINISTRATOR).call("GET", "/tokens", messages.TokensResponse)).tokens
