"""Who is let in: whoever may open the Unix socket (its folder is private), and whoever shows the token over TCP.

The web page shows a key made from the token, with which one can read only. The page itself holds no secret: its files
are given to everybody. A server without a token answers on this host's loopback only, and there only to requests that
were meant for it: a page from elsewhere whose name was made to lead here names another host.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final

from jobmon.core import access, places, wire
from jobmon.server.problems import Misdirected, Unauthorized, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH_PATH: Final = f"{wire.API_ROOT}/health"
PAGE_PATH: Final = "/"
STATIC_ROOT: Final = "/static/"
_READING: Final = ("GET", "HEAD")
_LOOPBACK_HOST: Final = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


class Gate:
    """ASGI middleware: checks the token, and tells somebody that there was a request."""

    def __init__(self, app: ASGIApp, token: str | None, on_activity: Callable[[], None]) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._reading = None if token is None else f"Bearer {access.page_key(token)}".encode()
        self._on_activity = on_activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401 or 421."""
        if scope["type"] == "http":
            objection = self._objection(scope)
            if objection is not None:
                await _refuse(send, objection)
                return
            if not _is_open(scope["path"]):  # strangers shall not keep a server that nobody needs
                self._on_activity()
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> Exception | None:
        if _came_through_unix_socket(scope):
            return None
        if self._expected is None or self._reading is None:
            return Misdirected() if _is_misdirected(scope) else None
        shown = _header(scope, b"authorization")
        if secrets.compare_digest(shown, self._expected) or _is_open(scope["path"]):
            return None
        if scope["method"] in _READING and secrets.compare_digest(shown, self._reading):
            return None
        return Unauthorized()


def _is_open(path: str) -> bool:
    return path in (HEALTH_PATH, PAGE_PATH) or path.startswith(STATIC_ROOT)


def _came_through_unix_socket(scope: Scope) -> bool:
    """ASGI names the address on which the request came in: a host and a port, or a path and no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _is_misdirected(scope: Scope) -> bool:
    """Whether a request that came in on the loopback names another host."""
    server = scope.get("server")
    if server is None or not places.is_loopback(server[0]):
        return False
    return _LOOPBACK_HOST.fullmatch(_header(scope, b"host")) is None


def _header(scope: Scope, wanted: bytes) -> bytes:
    found: bytes = next((value for name, value in scope["headers"] if name == wanted), b"")
    return found


async def _refuse(send: Send, objection: Exception) -> None:
    status, problem = problem_of(objection)
    content = wire.encode(problem)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),  # workers understand nothing else
    ]
    if isinstance(objection, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
