"""Generate the OpenAPI document from the table of routes and the wire messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobmon.core.wire.fields import INT64_MAX
from jobmon.core.wire.server import Problem
from jobmon.server.routes.endpoint import EVENTS, HTTP_NO_CONTENT, JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.server.routes.endpoint import Endpoint

_REF: Final = "#/components/schemas/{name}"
#: A server-sent event. Its data is the JSON of another route's answer.
_EVENT: Final = {"type": "object", "properties": {name: {"type": "string"} for name in ("event", "id", "data")}}
_PARAMETER: Final = re.compile(r"\{(\w+)(:id)?\}")


def describe(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Return the document."""
    endpoints = list(endpoints)
    kinds = {kind for one in endpoints for kind in (one.body, one.reply, one.query) if kind is not None} | {Problem}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.address)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Jobmon", "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint, schema_of: dict[type, Any], components: dict[str, Any]) -> dict[str, Any]:
    about = endpoint.body or endpoint.reply
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "description": (about.__doc__ or "") if about is not None else "",
        "parameters": _path_parameters(endpoint) + _query_parameters(endpoint, components),
        "responses": {
            str(endpoint.status): _answer(endpoint, schema_of),
            "default": _content("Refused.", schema_of[Problem]),
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, **_content("", schema_of[endpoint.body])}
        del operation["requestBody"]["description"]
    return operation


def _answer(endpoint: Endpoint, schema_of: dict[type, Any]) -> dict[str, Any]:
    if endpoint.status == HTTP_NO_CONTENT:
        return {"description": "Done."}
    if endpoint.media_type != JSON:
        schema = _EVENT if endpoint.media_type == EVENTS else {"type": "string"}
        return {"description": "The answer.", "content": {endpoint.media_type: {"schema": schema}}}
    return _content("The answer.", schema_of[endpoint.reply] if endpoint.reply else {})


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", _PARAMETER.sub(r"by_\1", endpoint.path))
    if endpoint.media_type != JSON:
        words.append("text")
    return "_".join([endpoint.method.lower(), *words])


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0, "maximum": INT64_MAX} if kind else {"type": "string"},
        }
        for name, kind in _PARAMETER.findall(endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint, components: dict[str, Any]) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    properties = components[endpoint.query.__name__]["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]
