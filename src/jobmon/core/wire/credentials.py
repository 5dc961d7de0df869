"""Credentials: the handshake, personal tokens, links to the web page. See `core.credentials` and `agent.handshake`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, field

from jobmon.core.credentials import LINK_DAYS, LINK_DAYS_MAX, TOKEN_DAYS
from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Name

#: Shorter than its database column, because the audit trail prefixes it with the kind of the principal.
USER_CHARACTERS_MAX: Final = 240
UserName = Annotated[str, Meta(max_length=USER_CHARACTERS_MAX)]
#: Maximum number of groups of one user.
GROUPS_MAX: Final = 500
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
    """POST /tokens: create a personal token. `user`: its user; "": the caller. `label`: what it is for.

    `groups`: the groups of the user from now on, which only an administrator may set; None: those that are known.
    """

    label: Name
    user: UserName = ""
    days: Days = TOKEN_DAYS
    groups: list[Name] | None = None


class Token(Message, frozen=True, kw_only=True):
    """A personal token, without its secret. `revoked_at` is None until it is revoked. `groups`: those of its user."""

    id: int
    user: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    groups: list[str] = field(default_factory=list)


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

    `can_steer`: whether it may also change workflows; `can_resume`: whether this server can start runs. `user`: who has
    logged in; "" for a link or the owner.
    """

    key: str
    can_steer: bool = False
    can_resume: bool = False
    user: str = ""
