"""The response to the first message of a handshake, processed alike by blocking and asynchronous clients."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from jobmon.agent import handshake
from jobmon.core import wire
from jobmon.core.wire.server import Problem

HTTP_OK: Final = 200
HTTP_UNAUTHORIZED: Final = 401
JSON: Final = {"content-type": "application/json"}


class Refused(handshake.Unproven):
    """The responder does not accept our credential, or has a different one; in both cases it has proved nothing."""

    status: Final = HTTP_UNAUTHORIZED
    #: Our own wording: nothing that an unproven server sends has any effect.
    content: Final = wire.encode(
        Problem(
            kind="Unauthorized",
            message="The server has a different token. Check http.token, or run 'jobmon login'.",
        )
    )


def accept(client: handshake.Client, status: int, content: bytes) -> None:
    """Check the response to a client's first message.

    Raises:
        Refused: the server does not accept the credential, or has a different one.
        Unproven: it is not a response of a Jobmon server.
    """
    if status == HTTP_UNAUTHORIZED:
        raise Refused("the server does not accept this credential")
    try:
        reply: Any = msgspec.json.decode(content) if status == HTTP_OK else None
    except (ValueError, RecursionError):
        reply = None
    try:
        client.accept(reply)
    except handshake.Mismatch as error:
        raise Refused(str(error)) from None
