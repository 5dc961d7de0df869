"""What monitoring reads: metrics for Prometheus, who may read them, and how a failed request is found in the log."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_world import RUN, TI, World, report
from starlette.routing import Route
from test_sockets import served
from tests.databases import PostgreSQLDatabases

from jobmon.core.clock import SystemClock
from jobmon.core.credentials import Agent, Right
from jobmon.core.wire import credentials as messages
from jobmon.server.app import create_app
from jobmon.server.log_format import JsonFormatter
from jobmon.server.routes.endpoint import Endpoint
from jobmon.server.settings import Settings

DASHBOARD = Path(__file__).resolve().parents[3] / "examples" / "shared-server" / "grafana-dashboard.json"
ADMINISTRATOR = "administrator-token"


async def metrics(http, **headers):
    """Return name and labels -> value."""
    answer = await http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.values())] = sample.value
    return found


async def run_with_a_failure(world):
    bound = await world.bound(3, max_attempts=1)
    run = await bound.start()
    await run.register()
    await run.queue()
    first, second, third = (await run.launched()).task_instance_ids
    await run.sync(report(first, TI.RUNNING), report(first, TI.ERROR_FATAL, error="why"), report(second, TI.RUNNING))
    return bound, run, (first, second, third)


async def test_metrics_tell_what_the_server_is_working_on(world, databases):
    _, run, (first, second, third) = await run_with_a_failure(world)
    found = await metrics(world.http)
    tasks = {key[1]: value for key, value in found.items() if key[0] == "jobmon_tasks" and value}
    assert tasks == {"ERROR_FATAL": 1, "RUNNING": 1, "INSTANTIATING": 1}
    assert found["jobmon_active_runs", "RUNNING"] == 1
    assert found["jobmon_active_attempts",] == 2
    assert found["jobmon_database_up",] == 1
    assert found["jobmon_database_bytes",] > 10_000
    assert found["jobmon_writes_total",] >= found["jobmon_transactions_total",] > 5
    assert found["process_resident_memory_bytes",] > 1_000_000
    (about,) = [key for key in found if key[0] == "jobmon_server_info"]
    assert databases.dialect in about
    await run.sync(report(first, TI.RUNNING))
    assert (await metrics(world.http))["jobmon_ignored_changes_total", "F", "R", "task instance"] == 1
    await run.sync(report(second, TI.DONE), report(third, TI.RUNNING), report(third, TI.DONE))
    await run.move(RUN.ERROR)
    found = await metrics(world.http)
    assert not [key for key in found if key[0] in ("jobmon_tasks", "jobmon_active_runs")], "nothing is active"


async def test_metrics_name_no_workflow_and_do_not_grow(world):
    await run_with_a_failure(world)
    before = (await world.http.get("/metrics")).text
    for _ in range(3):
        await run_with_a_failure(world)
    after = await metrics(world.http)
    assert set(after) == {
        (sample.name, *sorted(sample.labels.values()))
        for family in text_string_to_metric_families(before)
        for sample in family.samples
    }
    assert not re.search(r"\bw0\b|\bme\b|echo", before)


async def test_only_credentials_that_may_read_everything_see_metrics(tmp_path, databases):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)), token=ADMINISTRATOR)
    async with served(app, host="127.0.0.1", port=0) as server:
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        mine = {"Authorization": f"Bearer {ADMINISTRATOR}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=address, headers=mine) as http:
            world = World(http, app, SystemClock())
            bound = await world.bound(1)
            everything = await world.post("/page/links", messages.LinkResponse, messages.LinkRequest())
            request = messages.LinkRequest(workflow_id=bound.workflow_id)
            one = await world.post("/page/links", messages.LinkResponse, request)
        agent = app.state.services.authority.agent_token(Agent(bound.workflow_id))
        credentials = {ADMINISTRATOR: 200, everything.key: 200, one.key: 403, agent: 403, "wrong": 401, "": 401}
        async with httpx.AsyncClient(base_url=address) as http:
            for token, status in credentials.items():
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                assert (await http.get("/metrics", headers=headers)).status_code == status, token


async def test_metrics_are_there_while_the_database_is_not(own_postgresql, tmp_path):
    uri = PostgreSQLDatabases(own_postgresql.address).uri(tmp_path)
    app = create_app(Settings(database_uri=uri))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as http,
    ):
        await run_with_a_failure(World(http, app, SystemClock()))
        own_postgresql.stop()
        found = await metrics(http)
        assert found["jobmon_database_up",] == 0
        assert ("jobmon_active_attempts",) not in found
        own_postgresql.start()
        assert (await metrics(http))["jobmon_database_up",] == 1


async def test_the_dashboard_shows_only_metrics_that_exist(world):
    await run_with_a_failure(world)
    names = set(re.findall(r"^# TYPE (\w+)", (await world.http.get("/metrics")).text, re.MULTILINE))
    expressions = re.findall(r'"expr": "([^"]+)"', DASHBOARD.read_text(encoding="utf-8"))
    used = {name for one in expressions for name in re.findall(r"\b(?:jobmon|process)_\w+", one)}
    assert len(used) >= 10
    assert used <= names
    json.loads(DASHBOARD.read_text(encoding="utf-8"))


async def _fails(call):
    raise RuntimeError("a bug")


@pytest.mark.parametrize("given", ["from-the-proxy", "not an id\tof a request"])
async def test_a_failed_request_is_named_alike_in_the_answer_and_the_log(world, caplog, given):
    endpoint = Endpoint(right=Right.READ, method="GET", path="/broken/{workflow_id:id}", handle=_fails)
    world.app.router.routes.insert(0, Route("/api/v1/broken/{workflow_id:int}", endpoint))
    with caplog.at_level(logging.ERROR):
        answer = await world.http.get("/api/v1/broken/7", headers={"X-Request-ID": given})
    named = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json()["details"]["request_id"] == named
    assert named == given or re.fullmatch(r"[0-9a-f]{16}", named)
    (record,) = [one for one in caplog.records if "failed" in one.message]
    line = json.loads(JsonFormatter().format(record))
    assert (line["request_id"], line["path"], line["workflow_id"]) == (named, "/api/v1/broken/7", 7)
    assert line["principal"] == "owner"
    assert "RuntimeError: a bug" in line["exception"]
