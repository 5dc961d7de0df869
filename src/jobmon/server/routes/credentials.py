"""Routes that issue and revoke credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.credentials import Invited, Owner, PageUser, Reader, User
from jobmon.core.wire import replace
from jobmon.core.wire.credentials import LinkResponse, PageSession
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import Forbidden, Unauthorized
from jobmon.server.usecases import credentials

if TYPE_CHECKING:
    from jobmon.core.wire.credentials import LinkRequest, TokenResponse, TokensResponse
    from jobmon.server.routes.endpoint import Call

_MICROSECONDS = 1_000_000


def _user(call: Call) -> str | None:
    return call.principal.user if isinstance(call.principal, User) else None


async def create_token(call: Call) -> TokenResponse:
    """POST /tokens."""
    own = call.principal.user if isinstance(call.principal, Owner) else ""
    request = replace(call.message, user=_user(call) or call.message.user or own)
    response: TokenResponse
    response, stored = await call.write(credentials.create_token, request)
    call.services.authority.know(stored)
    return response


async def list_tokens(call: Call) -> TokensResponse:
    """GET /tokens."""
    return await call.services.readers.run(credentials.list_tokens, _user(call))


async def revoke_token(call: Call) -> None:
    """DELETE /tokens/{token_id}."""
    (token_id,) = call.ids
    stored, owner = await call.write(credentials.revoke_token, token_id, _user(call))
    call.services.authority.know(stored)
    authority = call.services.authority
    authority.close_pages(owner if isinstance(authority.roles.principal(owner), User) else None)


async def create_link(call: Call) -> LinkResponse:
    """POST /page/links."""
    request: LinkRequest = call.message
    key, until = call.services.authority.link_key(request.days, request.workflow_id)
    return LinkResponse(key=key, expires_at=to_datetime(until * _MICROSECONDS))


async def create_code(call: Call) -> LinkResponse:
    """POST /page/codes."""
    code, until = call.services.authority.page_code(PageUser(_user(call)))
    return LinkResponse(key=code, expires_at=to_datetime(until * _MICROSECONDS))


async def revoke_links(call: Call) -> None:
    """DELETE /page/links."""
    call.services.authority.know(await call.write(credentials.revoke_links))
    call.services.authority.close_pages()


async def open_page(call: Call) -> PageSession:
    """POST /page/session: exchange the credential of a link for one that expires with this process."""
    principal, authority = call.principal, call.services.authority
    if isinstance(principal, User | Owner) and authority.proxy.user_header:
        user = principal.user if isinstance(principal, User) else None
        return PageSession(key=authority.page_session(PageUser(user)), can_steer=True)
    if not isinstance(principal, Reader | Invited):
        raise Forbidden("Open the page by the address that 'jobmon ui' prints.")
    key = authority.open_page(principal)
    if key is None:
        raise Unauthorized
    can_steer = isinstance(principal, Invited)
    return PageSession(key=key, can_steer=can_steer, can_resume=can_steer and call.services.resumer is not None)
