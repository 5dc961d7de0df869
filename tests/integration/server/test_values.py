"""Extreme values in every request never cause a 500, and get the same answer from both databases.

Each field of each message takes each extreme value once, in a request that is otherwise right, so that it reaches the
database; then hypothesis combines them.
"""

import json
import re
import types
import typing
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_world import CLUSTER, Refused, open_world

from jobmon.core import wire
from jobmon.core.credentials import Right
from jobmon.core.wire.definition import ClustersResponse, ToolRequest, ToolResponse
from jobmon.core.wire.fields import JSON_BYTES_MAX, JSON_DEPTH_MAX
from jobmon.core.wire.monitoring import WorkflowsResponse
from jobmon.server.routes.table import ENDPOINTS

IDS = [0, 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**70, 10**50]
INTEGERS = [-(2**63) - 1, -(2**63), -(2**31) - 1, -1, 0, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**70]
FLOATS = [-1e300, -1.0, 0.0, 1e-320, 1e9, 1e12, 1e300]
TEXTS = ["", "x" * 255, "x" * 256, "\N{PARTY POPPER}" * 255, "é" * 5000, "a\0b", "\0", "\\u0000", "%", "'; --", "D"]
TIMES = [
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1899-12-31T00:00:00Z", "1970-01-01T00:00:00Z"),
    *("9998-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "2026-01-01"),
]
DEEP = json.loads("[" * (JSON_DEPTH_MAX + 1) + "]" * (JSON_DEPTH_MAX + 1))
VALUES = [None, [], {}, "a\0b", 2**63 - 1, {"x": {"y\0": 1}}, DEEP, "x" * JSON_BYTES_MAX]
#: What makes a request right whose message has these fields; others have a value by their type.
RIGHT = {
    "status": "D",
    "kind": "original",
    "cluster_name": CLUSTER,
    "queue_name": "q",
    "next_report_increment": 93.0,
    "max_concurrently_running": 5,
    "command_template": "echo {x}",
    "op_args": [],
    "task_args": [],
    "scales_index": [0],
    "fallback_index": [0],
    "task_counts": {"t": 1},
    "capacity": 1,
    "user": "me",
    "plugin": "dummy",
    "confidence": 0.9,
    "memory_strategy": "max",
    "cores_strategy": "max",
    "runtime_strategy": "max",
    "wait_seconds": 0.0,
    "leaving": False,
}


def extremes(hint):
    """Return the values to try for a type, or None where it is made of parts."""
    if hint is typing.Any:
        return VALUES
    if typing.get_origin(hint) is typing.Annotated:
        return extremes(typing.get_args(hint)[0])
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return TEXTS
    return {int: INTEGERS, float: FLOATS, str: TEXTS, datetime: TIMES, bool: [True]}.get(hint)


def right(hint, name=""):
    """Return a value that a request may have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return right(arguments[0], name)
    if name in RIGHT and (extremes(hint) or origin in (list, dict)) and isinstance(RIGHT[name], origin or hint):
        return RIGHT[name]
    if origin in (types.UnionType, typing.Union):
        return right(arguments[0], name)
    if origin is list:
        return [right(arguments[0], name)]
    if origin is dict:
        return {key_of(right(arguments[0])): right(arguments[1], name)}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint)).value
    if isinstance(hint, type) and issubclass(hint, wire.Message):
        return {field: right(inner, field) for field, inner in typing.get_type_hints(hint, include_extras=True).items()}
    return {int: 1, float: 1.0, str: "x", datetime: "2026-01-01T00:00:00Z", bool: False, typing.Any: 1}[hint]


def key_of(value):
    return value if isinstance(value, str) else json.dumps(value)


def variants(hint, value, name=""):
    """Return the value with each of its parts, one at a time, replaced by each extreme one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    found = extremes(hint)
    if found is not None:
        yield from found
    elif origin in (types.UnionType, typing.Union):
        for argument in arguments:
            if argument is not type(None):
                yield from variants(argument, value, name)
    elif origin is list:
        yield from ([one] for one in variants(arguments[0], right(arguments[0], name), name))
    elif origin is dict:
        key, inner = key_of(right(arguments[0])), right(arguments[1], name)
        yield from ({key: one} for one in variants(arguments[1], inner, name))
        yield from ({key_of(one): inner} for one in variants(arguments[0], right(arguments[0])))
    elif isinstance(hint, type) and issubclass(hint, wire.Message):
        for field, inner in typing.get_type_hints(hint, include_extras=True).items():
            yield from (value | {field: one} for one in variants(inner, value[field], field))


def paths(endpoint):
    """Return the path with small ids, and with each extreme id or name."""
    plain = re.sub(r"\{\w+:id\}", "1", endpoint.path).replace("{name}", "t")
    found = [plain]
    for place in re.findall(r"\{[^}]+\}", endpoint.path):
        values = [str(one) for one in [*IDS, "9" * 5000]] if place.endswith(":id}") else [quote(t) for t in TEXTS if t]
        for value in values:
            path = endpoint.path.replace(place, value)
            found.append(re.sub(r"\{\w+:id\}", "1", path).replace("{name}", "t"))
    return found


@pytest.fixture
async def full_world(tmp_path):
    """A server that has something under every small id."""
    async with open_world(tmp_path, long_poll_seconds_max=0.0, stream_seconds_max=0.0) as world:
        bound = await world.bound(3, edges={2: [0, 1]})
        run = await bound.start()
        await run.register()
        await run.queue()
        await run.launched(2)
        yield world


async def ask(world, endpoint, path, body=None, query=""):
    """Call the application as an HTTP server does: httpx takes longer to parse such addresses than ours to answer."""
    content = b"" if body is None else json.dumps(body).encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": endpoint.method,
        "root_path": "",
        "path": unquote(f"{endpoint.root}{path}"),
        "raw_path": f"{endpoint.root}{path}".encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"server"), *([] if body is None else [(b"content-length", b"%d" % len(content))])],
        "client": ("127.0.0.1", 123),
        "server": ("server", 80),
    }
    received = [{"type": "http.disconnect"}, {"type": "http.request", "body": content, "more_body": False}]
    sent = []

    async def receive():
        return received.pop() if len(received) > 1 else received[0]

    async def send(message):
        sent.append(message)

    await world.app(scope, receive, send)
    (start,) = (message for message in sent if message["type"] == "http.response.start")
    status, headers = start["status"], dict(start["headers"])
    assert headers.get(b"x-content-type-options") == b"nosniff", (endpoint.method, path)
    assert headers.get(b"cache-control") in (b"no-store", b"private, no-cache"), (endpoint.method, path)
    answer = b"".join(message.get("body", b"") for message in sent)
    assert status < 500, (endpoint.method, path[:200], query[:200], str(body)[:2000], answer[:2000])
    return status


#: Routes that anybody may call: probes and proxies may add fields.
OPEN = [endpoint for endpoint in ENDPOINTS if endpoint.right is Right.OPEN]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
async def test_a_field_that_a_route_does_not_have_is_refused(endpoint, full_world):
    body = None if endpoint.body is None else right(endpoint.body)
    for query in ("statsu=F", "bogus", "limit%00=1", "a\x1bb=1", "=1", "k" * 5000 + "=1"):
        status = await ask(full_world, endpoint, paths(endpoint)[0], body, query)
        assert (status != 422) if endpoint in OPEN else (status in (401, 422)), query


async def test_a_misspelled_filter_is_named_with_the_fields_of_its_route(world):
    with pytest.raises(Refused, match=r"422.*no field 'statsu' \(fields: workflow_id, user, status, "):
        await world.get("/workflows", WorkflowsResponse, statsu="F")
    with pytest.raises(Refused, match=r"422.*no field 'status' \(it has none\)"):
        await world.get("/clusters", ClustersResponse, status="F")


EXAMPLES = settings.default.max_examples // 15
EVERY_ROUTE = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")


@EVERY_ROUTE
async def test_no_extreme_value_is_a_failure_of_the_server(endpoint, full_world):
    body = {} if endpoint.body is None else right(endpoint.body)
    for path in paths(endpoint):
        await ask(full_world, endpoint, path, body if endpoint.method != "GET" else None)
    path = paths(endpoint)[0]
    if endpoint.body is not None:
        for one in variants(endpoint.body, body):
            await ask(full_world, endpoint, path, one)
    for field in [] if endpoint.query is None else endpoint.query.__annotations__:
        for text in [*map(str, [*INTEGERS, *FLOATS]), *TEXTS, *TIMES, "nan", "inf", "true"]:
            await ask(full_world, endpoint, path, query=f"{field}={quote(text)}&{field}={quote(text)}")


@EVERY_ROUTE
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_no_combination_of_extreme_values_is_a_failure_of_the_server(endpoint, data, full_world):
    body = None
    if endpoint.body is not None:
        body = right(endpoint.body)
        for _ in range(data.draw(st.integers(1, 3))):
            body |= data.draw(st.sampled_from(list(variants(endpoint.body, body))))
    await ask(full_world, endpoint, data.draw(st.sampled_from(paths(endpoint))), body)


@pytest.mark.parametrize("text", ["x\0y", "\\\0", "\\\\\0"])
async def test_a_nul_character_is_refused_and_text_about_one_is_not(world, text):
    with pytest.raises(Refused, match=r"422.*NUL"):
        await world.post("/tools", ToolResponse, ToolRequest(name=text))
    about = json.dumps(text)[1:-1]  # the escape as characters: a backslash, u, 0, 0, 0, 0
    assert (await world.post("/tools", ToolResponse, ToolRequest(name=about))).name == about
