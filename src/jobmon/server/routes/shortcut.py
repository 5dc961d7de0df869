"""The hot routes, found by their last word: the framework's search through all routes costs as much as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import compile_path

from jobmon.core import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from jobmon.server.routes.endpoint import Endpoint


class Shortcut:
    """ASGI middleware: answers requests for `endpoints`, whose last words differ, and leaves all others to the app."""

    def __init__(self, app: ASGIApp, endpoints: Iterable[Endpoint]) -> None:
        self._app = app
        self._routes = {
            (endpoint.method, _last_word(endpoint.path)): (compile_path(wire.API_ROOT + endpoint.path), endpoint)
            for endpoint in endpoints
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        await (self._find(scope) or self._app)(scope, receive, send)

    def _find(self, scope: Scope) -> ASGIApp | None:
        if scope["type"] != "http":
            return None
        path = scope["path"]
        route = self._routes.get((scope["method"], _last_word(path)))
        if route is None:
            return None
        (pattern, _, converters), endpoint = route
        match = pattern.match(path)
        if match is None:
            return None
        scope["path_params"] = {name: converters[name].convert(text) for name, text in match.groupdict().items()}
        return endpoint


def _last_word(path: str) -> str:
    return path.rpartition("/")[2]
