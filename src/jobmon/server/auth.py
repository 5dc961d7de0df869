"""Authenticate every request before it reaches a route. Its principal's rights are declared in `routes.table`.

A principal is derived, in this order, from: our own UID at the other end of the Unix socket; the handshake on the
connection and the MAC of the request (`agent.handshake`); the header of a trusted proxy (`roles`); a bearer token. The
files of the web page, the health checks, logins through a provider and the handshake need no credential.

Requests that a browser sends on behalf of another site are rejected: they name another host or origin, or write with a
content type other than JSON.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import handshake
from jobmon.core import paths, wire
from jobmon.core.credentials import OWNER, PageUser, Principal
from jobmon.core.wire.credentials import Hello, HelloReply
from jobmon.server.connections import HEAD_SECONDS_MAX, STATE_KEY, Connection
from jobmon.server.problems import Forbidden, ForeignOrigin, Malformed, Misdirected, NotJson, Unauthorized, problem_of
from jobmon.server.roles import UntrustedProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from jobmon.server.authority import Authority

    #: By lower-case name.
    Headers = Mapping[bytes, bytes]

OPEN_PATHS: Final = (f"{wire.API_ROOT}/health", f"{wire.API_ROOT}/ready", "/")
HANDSHAKE_PATH: Final = wire.API_ROOT + handshake.ROUTE
PAGE_PATH: Final = OPEN_PATHS[-1]
STATIC_ROOT: Final = "/static/"
#: Open if there is a login provider.
LOGIN_ROOT: Final = f"{wire.API_ROOT}/login/"
#: The key of the principal in a request's scope.
PRINCIPAL_KEY: Final = "jobmon.principal"
HELLO_BYTES_MAX: Final = 4_096
_SAFE: Final = ("GET", "HEAD")
_MAC: Final = handshake.MAC_HEADER.lower().encode()
_PROOF: Final = handshake.PROOF_HEADER.lower().encode()
_LENGTH: Final = b"content-length"
_BEARER: Final = "bearer"
_NO_TOKEN: Final = (
    "This server has no token, so it serves only the user who runs it, on its own host. For others, start it with"
    " JOBMON__HTTP__TOKEN set, and create personal tokens: jobmon token create."
)
#: Precedes an IPv4 address in the form of IPv6.
_MAPPED: Final = "::ffff:"
_LOOPBACK_HOST: Final = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
#: Prevents browsers and proxies from storing an answer.
NOT_STORED: Final = (b"cache-control", b"no-store")
#: Prevents browsers from guessing the content type of an answer.
NOT_GUESSED: Final = (b"x-content-type-options", b"nosniff")

logger = logging.getLogger(__name__)


class Gate:
    """ASGI middleware that determines the principal of a request, or rejects it.

    Args:
        app: the application behind the gate.
        authority: verifies credentials.
        on_activity: called for every request that is admitted.
    """

    def __init__(self, app: ASGIApp, authority: Authority, on_activity: Callable[[], None]) -> None:
        self._app = app
        self._authority = authority
        self._on_activity = on_activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, 415 or 421."""
        if scope["type"] == "http":
            connection: Connection | None = scope.get("state", {}).get(STATE_KEY)
            is_handshake = scope["path"] == HANDSHAKE_PATH and scope["method"] == "POST"
            principal = None if connection is None or is_handshake else self._known(scope, connection)
            if principal is None:
                try:
                    if is_handshake:
                        await self._shake_hands(scope, receive, send, connection)
                        return
                    receive, send, principal = self._checked(scope, receive, send, connection)
                except Exception as error:
                    await _refuse(send, error)
                    return
                if principal is not None and connection is not None:
                    connection.recognise()
            is_open = self._is_open(scope["path"])
            if principal is None and not is_open:
                await _refuse(send, Unauthorized(_NO_TOKEN if self._authority.is_open else None))
                return
            if not is_open:  # unauthenticated clients must not keep an idle server running
                self._on_activity()
            scope[PRINCIPAL_KEY] = principal
        await self._app(scope, receive, send)

    def _known(self, scope: Scope, connection: Connection) -> Principal | None:
        """Return the principal of a connection that needs no proof, or of an earlier request that looked the same."""
        if connection.is_ours:
            return OWNER
        if connection.let_in is not None and connection.let_in[0] == self._look(scope):
            _, principal, until = connection.let_in
            return principal if self._authority.now() < until else None
        return None

    def _look(self, scope: Scope) -> tuple[str, list[tuple[bytes, bytes]], int]:
        """Return everything that decides whether a request without a MAC is admitted."""
        headers = [one for one in scope["headers"] if one[0] != _LENGTH]
        return scope["method"], headers, self._authority.generation

    def _checked(
        self, scope: Scope, receive: Receive, send: Send, connection: Connection | None
    ) -> tuple[Receive, Send, Principal | None]:
        """Return how to receive and send, and the principal; None: unknown.

        Raises:
            Unauthorized: the MAC is wrong.
            UntrustedProxy: a header that only the proxy may send comes from elsewhere.
            Forbidden: the proxy names a user without a role.
            Misdirected, ForeignOrigin, NotJson: a browser sent the request on behalf of another site.
        """
        headers = dict(reversed(scope["headers"]))  # of several headers with one name, the first counts
        self._check_browser(scope, headers)
        if connection is not None and (sealed := headers.get(_MAC)):
            receive, send, identity = _sealed(scope, headers, receive, send, connection, sealed)
            return receive, send, self._authority.principal(identity)
        proxy = self._authority.proxy
        for one in filter(None, (proxy.user_header, proxy.groups_header)):
            if sum(name == one for name, _ in scope["headers"]) > 1:
                raise UntrustedProxy(f"{one.decode()}: the proxy must replace this header, not add another.")
        named = proxy.user_of(headers, is_local=connection is not None and connection.is_local)
        if named is not None:
            if (by_role := self._authority.roles.principal(*named)) is None:
                raise Forbidden(f"{named[0]} has no role on this server. Ask its administrator.")
            shown = self._shown(headers, connection)
            return receive, send, shown if isinstance(shown, PageUser) else by_role
        principal = self._shown(headers, connection)
        if connection is not None and principal is not None:
            until = self._authority.valid_until(principal, bearer_token(headers))
            connection.let_in = (self._look(scope), principal, until) if until else None
        return receive, send, principal

    def _shown(self, headers: Headers, connection: Connection | None) -> Principal | None:
        """Return the principal of a request's bearer token; on a server without a token, our own user needs none."""
        token = bearer_token(headers)
        found = self._authority.bearer(token) if token else None
        if found is None and self._authority.is_open and (connection is None or connection.is_our_users):
            return OWNER
        return found

    def _check_browser(self, scope: Scope, headers: Headers) -> None:
        """Reject a request that a browser sends on behalf of another site.

        Raises:
            Misdirected, ForeignOrigin, NotJson: it is such a request.
        """
        host, origin = headers.get(b"host", b""), headers.get(b"origin", b"")
        if self._authority.is_open and _is_on_loopback(scope) and _LOOPBACK_HOST.fullmatch(host) is None:
            raise Misdirected
        if origin and origin.partition(b"://")[2].lower() != host.lower():
            raise ForeignOrigin(origin.decode(errors="replace"))
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind and kind != b"application/json" and scope["method"] not in _SAFE:
            raise NotJson(kind.decode(errors="replace"))

    async def _shake_hands(self, scope: Scope, receive: Receive, send: Send, connection: Connection | None) -> None:
        """Answer a client that verifies whether we are its server.

        Raises:
            Unauthorized: its credential is unknown here, or it meant to connect to another address.
        """
        async with asyncio.timeout(HEAD_SECONDS_MAX):
            hello = wire.decode(Hello, await _short_body(receive))
        verifier = self._authority.verifier(hello.identity)
        if connection is None or verifier is None or not self._is_meant(scope, hello.address):
            raise Unauthorized
        connection.handshake = handshake.Server(hello.identity, verifier, hello.address, hello.nonce)
        await _answer(send, 200, wire.encode(HelloReply(**connection.handshake.reply)))

    def _is_open(self, path: str) -> bool:
        """Return whether a path needs no credential."""
        if path.startswith(LOGIN_ROOT):
            return self._authority.has_login
        return path in OPEN_PATHS or path.startswith(STATIC_ROOT)

    def _is_meant(self, scope: Scope, address: str) -> bool:
        if not self._authority.is_strict or (host := _own_host(scope)) is None:
            return True
        return address == f"{host}:{scope['server'][1]}"


def bearer_token(headers: Headers) -> str:
    """Return the token that a request shows; "": none."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == _BEARER else ""


def _is_on_loopback(scope: Scope) -> bool:
    host = _own_host(scope)
    return host is not None and paths.is_loopback(host)


def _own_host(scope: Scope) -> str | None:
    """Return the address at which a request arrived; None: a Unix socket, or unknown.

    A socket for all addresses of IPv6 reports IPv4 addresses in the form of IPv6.
    """
    server = scope.get("server")
    return None if server is None or server[1] is None else str(server[0]).removeprefix(_MAPPED)


def _sealed(
    scope: Scope, headers: Headers, receive: Receive, send: Send, connection: Connection, sealed: bytes
) -> tuple[Receive, Send, str]:
    """Return a `receive` that checks a request's MAC at the end of its body, a `send` that adds one, and the identity.

    Raises:
        Unauthorized: the client has not proved itself, or the MAC of a request without a body is wrong.
    """
    server = connection.handshake
    if server is None or not server.takes_proof(headers.get(_PROOF, b"").decode("latin-1")):
        raise Unauthorized
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    running = server.request(scope["method"], target.decode("latin-1"))

    def check() -> None:
        if not handshake.is_same(running.digest().hex().encode(), sealed):
            raise Unauthorized

    if not _has_body(headers):
        check()

    async def checked() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            running.update(message.get("body", b""))
            if not message.get("more_body", False):
                check()
        return message

    return checked, _sealing(send, server), server.identity


def _sealing(send: Send, server: handshake.Server) -> Send:
    """Return a `send` that adds a MAC to an answer, for which it collects the whole body."""
    start: dict[str, Any] = {}
    parts: list[bytes] = []

    async def seal(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(parts)
        code = server.response(start["status"]).update(body).digest().hex().encode()
        await send({**start, "headers": [*start.get("headers", ()), (_MAC, code)]})
        await send({"type": "http.response.body", "body": body})

    return seal


def _has_body(headers: Headers) -> bool:
    return headers.get(_LENGTH, b"0") not in (b"", b"0") or bool(headers.get(b"transfer-encoding"))


async def _short_body(receive: Receive) -> bytes:
    """Return the body of a request from an unauthenticated client.

    Raises:
        Malformed: it is too long or incomplete.
    """
    body = b""
    is_more = True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
        if len(body) > HELLO_BYTES_MAX or message["type"] == "http.disconnect":
            raise Malformed("The handshake is too long.")
    return body


async def _refuse(send: Send, objection: Exception) -> None:
    if isinstance(objection, (ValueError, TimeoutError)):
        objection = Malformed("This is not a Jobmon handshake.")
    status, problem = problem_of(objection)
    if status == 500:
        logger.exception("The gate failed", exc_info=objection)
    extra = [(b"www-authenticate", b"Bearer")] if isinstance(objection, Unauthorized) else []
    await _answer(send, status, wire.encode(problem), extra)


async def _answer(send: Send, status: int, content: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),  # workers support nothing else
        *(NOT_STORED, NOT_GUESSED),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
