"""Log in to a shared server through its OpenID Connect provider. See `server.oidc` and `server.login`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

from jobmon.core.wire import Message
from jobmon.core.wire.credentials import TokenResponse
from jobmon.core.wire.fields import Hash, Name

#: `Health.login` of a server with a provider.
OIDC: Final = "oidc"
#: Longest authorization code, state or device code; providers use up to some 2,000 characters.
CODE_CHARACTERS_MAX: Final = 4_096
#: Maximum size of a request of somebody who has not logged in yet, bytes.
LOGIN_BYTES_MAX: Final = 16 * 1_024

Code = Annotated[str, Meta(max_length=CODE_CHARACTERS_MAX)]


class Purpose(StrEnum):
    """What a login ends in: the session of a web page, or a personal token for the command line."""

    PAGE = "page"
    TOKEN = "token"


class LoginRequest(Message, frozen=True, kw_only=True):
    """POST /login/start -> `LoginStart`

    `challenge`: SHA-256, in hexadecimal digits, of a secret of the caller, who alone can finish this login.
    """

    purpose: Purpose
    challenge: Hash


class LoginStart(Message, frozen=True, kw_only=True):
    """The address of the provider at which to log in. It leads back to the page, with a code and `state`."""

    url: str
    state: str


class PageLogin(Message, frozen=True, kw_only=True):
    """POST /login/page: exchange the provider's code for a session -> `PageSession`"""

    state: Code
    code: Code
    secret: Hash


class TokenLogin(Message, frozen=True, kw_only=True):
    """POST /login/token: exchange the provider's code for a personal token -> `TokenResponse`"""

    state: Code
    code: Code
    secret: Hash
    label: Name = ""


class DeviceStart(Message, frozen=True, kw_only=True):
    """POST /login/device: start a login in a browser on any device.

    `handle`: for POST /login/device/token; "": the provider has no device flow. `verification_uri_complete` includes
    the code; "": the provider does not support that.
    """

    handle: str = ""
    user_code: str = ""
    verification_uri: str = ""
    verification_uri_complete: str = ""
    interval_seconds: float = 0.0
    expires_in_seconds: float = 0.0


class DeviceLogin(Message, frozen=True, kw_only=True):
    """POST /login/device/token -> `DeviceReply`"""

    handle: Code
    label: Name = ""


class DeviceReply(Message, frozen=True, kw_only=True):
    """The personal token, or None as long as the user has not logged in; `slow_down`: ask less often from now on."""

    token: TokenResponse | None = None
    slow_down: bool = False
