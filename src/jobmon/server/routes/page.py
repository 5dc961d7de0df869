"""The web page: a few built files (their sources are in `ui/`), each read on its first request.

All data shown on the page come from `/api/v1`. Text from users, such as names of tasks, cannot execute anything: the
page may load only its own files, connect only to this server, and turn no text into markup.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.routing import Route

from jobmon.server.auth import PAGE_PATH, STATIC_ROOT

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

FOLDER: Final = Path(__file__).resolve().parents[1] / "static"
START: Final = "index.html"
#: There are no other files, so no path leads anywhere else.
TYPES: Final = {
    START: b"text/html; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "page.css": b"text/css; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = (
    (b"cache-control", b"no-cache"),  # cached, but revalidated each time: a new version is seen at once
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    tag: bytes


@cache
def _file(name: str) -> _File:
    content = (FOLDER / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()
    return _File(content, (*_HEADERS, (b"content-type", TYPES[name]), (b"etag", tag)), tag)


class Page:
    """Answers with a file, or with 304 if the client has it already."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        name = scope["path_params"].get("name", START)
        if name not in TYPES:
            raise HTTPException(404)
        file = _file(name)
        is_known = _has(scope, file.tag)
        content = b"" if is_known or scope["method"] == "HEAD" else file.content
        size = () if is_known else ((b"content-length", b"%d" % len(file.content)),)
        status = 304 if is_known else 200
        await send({"type": "http.response.start", "status": status, "headers": [*file.headers, *size]})
        await send({"type": "http.response.body", "body": content})


def _has(scope: Scope, tag: bytes) -> bool:
    known = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
    return tag in (one.strip().removeprefix(b"W/") for one in known.split(b","))


ROUTES: Final = (
    Route(PAGE_PATH, Page(), methods=["GET"]),
    Route(f"{STATIC_ROOT}{{name}}", Page(), methods=["GET"]),
)
