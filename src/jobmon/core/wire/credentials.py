"""Credentials: the handshake, personal tokens, links to the web page. See `core.credentials` and `agent.handshake`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from jobmon.core.credentials import LINK_DAYS, LINK_DAYS_MAX, TOKEN_DAYS
from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Name

#: Shorter than its database column, because the audit trail prefixes it with the kind of the principal.
UserName = Annotated[str, Meta(max_length=240)]
#: Period of validity, days.
Days = Annotated[float, Meta(gt=0.0, le=LINK_DAYS_MAX)]


class Hello(Message, frozen=True, kw_only=True):
    """POST /handshake: a client requests the server's proof of identity; see `handshake.Client`."""

    identity: Name
    address: Name
    nonce: Name


class HelloReply(Message, frozen=True, kw_only=True):
    """The server's nonce and its proof, in hexadecimal digits."""

    nonce: str
    proof: str


class TokenRequest(Message, frozen=True, kw_only=True):
    """POST /tokens: create a personal token. `user`: its user; "": the caller. `label`: what it is for."""

    label: Name
    user: UserName = ""
    days: Days = TOKEN_DAYS


class Token(Message, frozen=True, kw_only=True):
    """A personal token, without its secret. `revoked_at` is None until it is revoked."""

    id: int
    user: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class TokenResponse(Message, frozen=True, kw_only=True):
    """The new token. `secret` is the credential to send; it is not stored, so this response is the only one with it."""

    token: Token
    secret: str


class TokensResponse(Message, frozen=True, kw_only=True):
    """GET /tokens: the caller's tokens; for an administrator: all tokens."""

    tokens: list[Token]


class LinkRequest(Message, frozen=True, kw_only=True):
    """POST /page/links: create a key that grants a browser read access to everything or to one workflow."""

    workflow_id: Id | None = None
    days: Days = LINK_DAYS


class LinkResponse(Message, frozen=True, kw_only=True):
    """The key, and when it expires. The key of POST /page/codes can be exchanged once, for a session that steers."""

    key: str
    expires_at: datetime


class PageSession(Message, frozen=True, kw_only=True):
    """POST /page/session: the key that a page sends instead of its link's key. Expires with the server's process.

    `can_steer`: whether it may also change workflows; `can_resume`: whether this server can start runs.
    """

    key: str
    can_steer: bool = False
    can_resume: bool = False
