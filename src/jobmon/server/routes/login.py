"""Routes by which people log in through the OpenID Connect provider. They need no credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.credentials import Owner, Principal, User
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.credentials import TokenRequest
from jobmon.core.wire.login import DeviceReply, DeviceStart, LoginStart, Purpose
from jobmon.server import login
from jobmon.server.routes.credentials import at_page, page_session
from jobmon.server.transaction import acting_for
from jobmon.server.usecases import credentials

if TYPE_CHECKING:
    from jobmon.core.wire.credentials import PageSession, TokenResponse
    from jobmon.core.wire.login import DeviceLogin, LoginRequest, PageLogin, TokenLogin
    from jobmon.server.authority import Stored
    from jobmon.server.oidc import Identity, Provider
    from jobmon.server.routes.endpoint import Call


def _provider(call: Call) -> Provider:
    provider = call.services.provider
    if provider is None:
        raise InvalidRequest("This server has no login provider (auth.oidc_issuer). Use a personal token.")
    return provider


def _now(call: Call) -> float:
    return call.services.clock.now().timestamp()


async def start(call: Call) -> LoginStart:
    """POST /login/start."""
    request: LoginRequest = call.message
    key = call.services.authority.login_key
    state, pending = login.start(key, request.purpose, request.challenge, _now(call))
    return LoginStart(url=await _provider(call).authorization_url(state, pending), state=state)


async def finish_at_page(call: Call) -> PageSession:
    """POST /login/page."""
    identity = await _exchanged(call, Purpose.PAGE)
    principal = _role(call, identity)
    authority = call.services.authority
    if authority.groups_of(identity.user) != identity.groups:
        stored: Stored = await call.services.writer.run(
            acting_for, _name(principal), credentials.set_groups, identity.user, identity.groups
        )
        authority.know(stored)
    at_the_page = at_page(principal)
    return page_session(call, authority.page_session(at_the_page), at_the_page, identity.user)


async def finish_with_token(call: Call) -> TokenResponse:
    """POST /login/token."""
    message: TokenLogin = call.message
    return await _token(call, await _exchanged(call, Purpose.TOKEN), message.label)


async def start_device(call: Call) -> DeviceStart:
    """POST /login/device."""
    device = await _provider(call).start_device()
    if device is None:
        return DeviceStart()
    until = _now(call) + device.expires_in_seconds
    return DeviceStart(
        handle=login.device_handle(call.services.authority.login_key, device.device_code, until),
        user_code=device.user_code,
        verification_uri=device.verification_uri,
        verification_uri_complete=device.verification_uri_complete,
        interval_seconds=device.interval_seconds,
        expires_in_seconds=device.expires_in_seconds,
    )


async def finish_device(call: Call) -> DeviceReply:
    """POST /login/device/token."""
    message: DeviceLogin = call.message
    code = login.device_code(call.services.authority.login_key, message.handle, _now(call))
    found = await _provider(call).poll_device(code)
    if isinstance(found, str):
        return DeviceReply(slow_down=found == "slow_down")
    return DeviceReply(token=await _token(call, found, message.label))


async def _exchanged(call: Call, purpose: Purpose) -> Identity:
    message: PageLogin | TokenLogin = call.message
    provider = _provider(call)
    key = call.services.authority.login_key
    pending = login.finish(key, purpose, message.state, message.secret, _now(call))
    return await provider.exchange(message.code, pending)


async def _token(call: Call, identity: Identity, label: str) -> TokenResponse:
    """Create a personal token for somebody who has logged in."""
    principal = _role(call, identity)
    days = _provider(call).settings.token_days
    request = TokenRequest(user=identity.user, label=label, days=days)
    response: TokenResponse
    response, stored = await call.services.writer.run(
        acting_for, _name(principal), credentials.create_token, request, identity.groups
    )
    call.services.authority.know(stored)
    return response


def _role(call: Call, identity: Identity) -> Principal:
    """Return the principal of somebody who has logged in.

    Raises:
        LoginRefused: the user has no role here.
    """
    principal = call.services.authority.roles.principal(identity.user, identity.groups)
    if principal is None:
        raise login.LoginRefused(f"{identity.user} has no role on this server. Ask its administrator.")
    return principal


def _name(principal: Principal) -> str:
    """Return the name in the audit trail of somebody who logs in."""
    return f"{principal.name} (login)" if isinstance(principal, User | Owner) else principal.name
