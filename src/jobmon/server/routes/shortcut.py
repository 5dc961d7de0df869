"""Find the hot routes by the last segment of the path: the framework's search costs as much as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import compile_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from jobmon.server.routes.endpoint import Endpoint


class Shortcut:
    """ASGI middleware that answers requests for `endpoints`, and passes all others to the app."""

    def __init__(self, app: ASGIApp, endpoints: Iterable[Endpoint]) -> None:
        self._app = app
        self._routes: dict[tuple[str, str], list[tuple[Any, Endpoint]]] = {}
        for endpoint in endpoints:
            routes = self._routes.setdefault((endpoint.method, _last_word(endpoint.path)), [])
            routes.append((compile_path(endpoint.address), endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        await (self._find(scope) or self._app)(scope, receive, send)

    def _find(self, scope: Scope) -> ASGIApp | None:
        if scope["type"] != "http":
            return None
        path = scope["path"]
        for (pattern, _, converters), endpoint in self._routes.get((scope["method"], _last_word(path)), ()):
            match = pattern.match(path)
            if match is not None:
                found = match.groupdict().items()
                scope["path_params"] = {name: converters[name].convert(text) for name, text in found}
                return endpoint
        return None


def _last_word(path: str) -> str:
    return path.rpartition("/")[2]
