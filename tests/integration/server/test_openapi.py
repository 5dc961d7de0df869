"""Call every route of a real server with valid and invalid requests, as its API document describes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import httpx
import pytest
import requests
import schemathesis
import schemathesis.specs.openapi.schemas  # imported lazily, it would be while the server's thread imports something
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from server_world import World

from jobmon.core.clock import SystemClock
from jobmon.server.app import VERSION, create_app
from jobmon.server.routes.document import describe
from jobmon.server.routes.table import ENDPOINTS
from jobmon.server.settings import Settings

EXAMPLES_PER_ROUTE = 2


@pytest.fixture(scope="module")
def app(tmp_path_factory, databases):
    folder = tmp_path_factory.mktemp("openapi")
    return create_app(Settings(database_uri=databases.uri(folder), long_poll_seconds_max=0.0, stream_seconds_max=0.0))


@pytest.fixture(scope="module")
def schema(app):
    return schemathesis.openapi.from_dict(describe(ENDPOINTS, VERSION))


@pytest.fixture(scope="module")
def url(app, schema):
    # The schema comes first: it imports much, and Python 3.11 cannot compile in two threads at once (SystemError).
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.001)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    asyncio.run(_fill(app, url))
    yield url
    server.should_exit = True
    thread.join()


async def _fill(app, url):
    """Small ids, which the generator likes, shall mean something."""
    async with httpx.AsyncClient(base_url=url) as http:
        bound = await World(http, app, SystemClock()).bound(3, edges={2: [0, 1]})
        run = await bound.start()
        await run.register()
        await run.queue()
        await run.launched(2)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_answer_is_as_documented_and_none_is_a_failure(schema, url, mode):
    schema.config.update(base_url=url)
    asked = set()
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if mode == GenerationMode.NEGATIVE and not list(operation.body) and not _has_numbers(operation):
                continue  # nothing to get wrong

            @settings(
                max_examples=EXAMPLES_PER_ROUTE,
                database=None,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def ask(case):
                answer = case.call(session=session)
                assert answer.status_code < 500, (case.operation.label, answer.text)
                case.operation.validate_response(answer)
                asked.add(case.operation.label)

            ask()
    assert len(asked) > 20


def _has_numbers(operation):
    parameters = (*operation.path_parameters, *operation.query)
    return any(one.definition["schema"].get("type") != "string" for one in parameters)
