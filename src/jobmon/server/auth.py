"""Who is let in: whoever may open the Unix socket (its folder is private), and whoever shows the token over TCP."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from jobmon.core import wire
from jobmon.server.problems import Unauthorized, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS: Final = (f"{wire.API_ROOT}/health",)


class Gate:
    """ASGI middleware: checks the token, and tells somebody that there was a request."""

    def __init__(self, app: ASGIApp, token: str | None, on_activity: Callable[[], None]) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._on_activity = on_activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401."""
        if scope["type"] == "http":
            if not self._is_let_in(scope):
                await _refuse(send)
                return
            if scope["path"] not in OPEN_PATHS:
                self._on_activity()
        await self._app(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        if self._expected is None or _came_through_unix_socket(scope) or scope["path"] in OPEN_PATHS:
            return True
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return secrets.compare_digest(shown, self._expected)


def _came_through_unix_socket(scope: Scope) -> bool:
    """ASGI names the address on which the request came in: a host and a port, or a path and no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


async def _refuse(send: Send) -> None:
    status, problem = problem_of(Unauthorized())
    content = wire.encode(problem)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),  # workers understand nothing else
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
