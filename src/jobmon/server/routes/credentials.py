"""Routes that issue and revoke credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.credentials import Invited, Owner, PageUser, Principal, Reader, User
from jobmon.core.wire import replace
from jobmon.core.wire.credentials import LinkResponse, PageSession
from jobmon.server.problems import Forbidden, Unauthorized
from jobmon.server.queries.presence import require
from jobmon.server.times import to_datetime
from jobmon.server.usecases import credentials

if TYPE_CHECKING:
    from jobmon.core.wire.credentials import LinkRequest, TokenRequest, TokenResponse, TokensResponse
    from jobmon.server.routes.endpoint import Call

_MICROSECONDS = 1_000_000


def _user(call: Call) -> str | None:
    return call.principal.user if isinstance(call.principal, User) else None


def at_page(principal: Principal) -> PageUser | Reader:
    """Return the principal at the web page of an owner, a user, or a reader by role.

    Raises:
        Forbidden: this credential opens no page of its own.
    """
    if isinstance(principal, Owner):
        return PageUser()
    if isinstance(principal, User):
        return PageUser(principal.user, principal.groups)
    if isinstance(principal, Reader) and principal.user:
        return principal
    raise Forbidden(f"This credential ({principal.name}) does not allow that.")


def page_session(call: Call, key: str, page_user: PageUser | Reader, user: str = "") -> PageSession:
    """Return what a page learns about its session: its key, and what its principal may do.

    Args:
        call: the request.
        key: the key of the session.
        page_user: the principal of the session.
        user: who has logged in, if somebody has.
    """
    can_steer = isinstance(page_user, PageUser)
    can_resume = can_steer and call.services.resumer is not None
    return PageSession(key=key, can_steer=can_steer, can_resume=can_resume, user=user)


def _groups_by_proxy(call: Call) -> frozenset[str] | None:
    """Return the groups of a user whom a proxy may have named; None: no proxy names groups."""
    if isinstance(call.principal, User) and call.services.authority.proxy.groups_header:
        return call.principal.groups
    return None


async def create_token(call: Call) -> TokenResponse:
    """POST /tokens."""
    own = call.principal.user if isinstance(call.principal, Owner) else ""
    request: TokenRequest = replace(call.message, user=_user(call) or call.message.user or own)
    if request.groups is None:
        groups = _groups_by_proxy(call)
    elif isinstance(call.principal, Owner):
        groups = frozenset(request.groups)
    else:
        raise Forbidden("groups: only an administrator may name the groups of a user.")
    response: TokenResponse
    response, stored = await call.write(credentials.create_token, request, groups)
    call.services.authority.know(stored)
    return response


async def list_tokens(call: Call) -> TokensResponse:
    """GET /tokens."""
    return await call.services.readers.run(credentials.list_tokens, _user(call))


async def revoke_token(call: Call) -> None:
    """DELETE /tokens/{token_id}."""
    (token_id,) = call.ids
    stored, owner = await call.write(credentials.revoke_token, token_id, _user(call))
    authority = call.services.authority
    authority.know(stored)
    authority.close_pages(owner if isinstance(authority.role_of(owner), User | Reader) else None)


async def create_link(call: Call) -> LinkResponse:
    """POST /page/links."""
    request: LinkRequest = call.message
    authority = call.services.authority
    if request.workflow_id is not None:  # a later workflow with this ID may be another user's
        await call.services.readers.glance(require, "workflow", request.workflow_id)
    if request.workflow_id is None and authority.readable_users(call.principal) is not None:
        raise Forbidden(
            "workflow_id: on this server you do not read everybody's workflows, so a link has to name one of yours:"
            " jobmon ui --only -w ID."
        )
    key, until = authority.link_key(request.days, request.workflow_id)
    return LinkResponse(key=key, expires_at=to_datetime(until * _MICROSECONDS))


async def create_code(call: Call) -> LinkResponse:
    """POST /page/codes."""
    code, until = call.services.authority.page_code(at_page(call.principal))
    return LinkResponse(key=code, expires_at=to_datetime(until * _MICROSECONDS))


async def revoke_links(call: Call) -> None:
    """DELETE /page/links."""
    call.services.authority.know(await call.write(credentials.revoke_links))
    call.services.authority.close_pages()


async def open_page(call: Call) -> PageSession:
    """POST /page/session: exchange the credential of a link for one that expires with this process."""
    principal, authority = call.principal, call.services.authority
    if isinstance(principal, User | Owner) and authority.proxy.user_header:
        groups = _groups_by_proxy(call)
        if isinstance(principal, User) and groups is not None and groups != authority.groups_of(principal.user):
            authority.know(await call.write(credentials.set_groups, principal.user, groups))
        page_user = at_page(principal)
        return page_session(call, authority.page_session(page_user), page_user)
    if not isinstance(principal, Reader | Invited):
        raise Forbidden("Open the page by the address that 'jobmon ui' prints.")
    key = authority.open_page(principal)
    if key is None:
        raise Unauthorized
    return page_session(call, key, principal.page_user if isinstance(principal, Invited) else principal)
