"""Which credentials this server accepts, and whose they are. `core.credentials` defines the rules."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from jobmon.agent import handshake
from jobmon.agent.handshake import Verifier
from jobmon.core import credentials
from jobmon.core.credentials import OWNER, Agent, Invited, PageUser, Principal, Reader, User
from jobmon.server.roles import Proxy, Roles, Sharing

if TYPE_CHECKING:
    from collections.abc import Callable

#: Maximum number of open web pages; one more invalidates the oldest, which then has to be opened again.
PAGE_SESSIONS_MAX: Final = 1_000
#: Maximum number of bearer tokens that are remembered as genuine.
GENUINE_MAX: Final = 10_000
#: Maximum number of users for whom it is remembered whose workflows they may read.
READABLE_MAX: Final = 10_000
#: Maximum number of codes for pages that were not opened yet; one more invalidates the oldest.
PAGE_CODES_MAX: Final = 1_000
#: A shorter token chosen by a person can be guessed.
TOKEN_CHARACTERS_MIN: Final = 16


_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class PersonalToken:
    """The stored part of a personal token. `expires_at`: seconds since 1970."""

    user: str
    verifier: Verifier
    expires_at: float


@dataclass(frozen=True, slots=True)
class Stored:
    """The credentials in the database: the keys that sign them, personal tokens by ID, and groups by user."""

    agent_key: bytes
    link_key: bytes
    tokens: dict[int, PersonalToken] = field(default_factory=dict)
    groups: dict[str, frozenset[str]] = field(default_factory=dict)


class Authority:
    """Issues and verifies credentials.

    Args:
        token: the owner's; None: every request of the user who runs the server counts as the owner's.
        now: returns the time, seconds since 1970.
        is_strict: whether a handshake must be meant for the exact address at which it arrives. This holds for an
            embedded server, whose clients know that address; a shared one may have other names, or a proxy in front of
            it.
        roles: of the users of a shared server.
        proxy: how a proxy in front of the server names the users that it has authenticated.
        sharing: whose workflows the users of a shared server may read.
        has_login: whether people may log in through a provider.
    """

    def __init__(
        self,
        token: str | None,
        now: Callable[[], float],
        *,
        is_strict: bool = False,
        roles: Roles | None = None,
        proxy: Proxy | None = None,
        sharing: Sharing | None = None,
        has_login: bool = False,
    ) -> None:
        self.roles = roles or Roles()
        self.proxy = proxy or Proxy()
        self.has_login = has_login
        self._sharing = sharing or Sharing()
        self._readable: dict[tuple[str, frozenset[str]], frozenset[str] | None] = {}
        self.is_open = token is None
        self.is_strict = is_strict
        self._owner = None if token is None else handshake.verifier_of(token)
        self._now = now
        self._stored = Stored(credentials.new_key(), credentials.new_key())
        self._genuine: set[bytes] = set()  # digests
        #: Counts changes of the stored credentials; requests that were admitted before have to be checked again.
        self.generation = 0
        #: Sessions of pages by key, and when they expire, seconds since 1970.
        self._sessions: OrderedDict[str, tuple[Reader | PageUser, float]] = OrderedDict()
        self._codes: OrderedDict[str, Invited] = OrderedDict()

    def know(self, stored: Stored) -> None:
        """Replace the known credentials by those in the database."""
        self._stored = stored
        self._genuine.clear()
        self._readable.clear()
        self.generation += 1

    @property
    def login_key(self) -> bytes:
        """The key that signs logins in progress; revoking the links to the page replaces it."""
        return handshake.mac(self._stored.link_key, "login")

    def groups_of(self, user: str) -> frozenset[str]:
        """Return the known groups of a user."""
        return self._stored.groups.get(user, frozenset())

    def readable_users(self, principal: Principal) -> frozenset[str] | None:
        """Return the users whose workflows a principal may read; None: this does not depend on the user."""
        person = principal.page_user if isinstance(principal, Invited) else principal
        if not isinstance(person, User | PageUser) or person.user is None:
            return None
        key = person.user, person.groups
        if key not in self._readable:
            if len(self._readable) >= READABLE_MAX:
                self._readable.clear()
            self._readable[key] = self._sharing.readable_users(person.user, person.groups, self._stored.groups)
        return self._readable[key]

    # -- verifying ---------------------------------------------------------------------------------------------

    def bearer(self, token: str) -> Principal | None:
        """Return the principal of a token, or None."""
        identity = handshake.identity_of(token)
        if self._is_genuine(identity, token):
            return self.principal(identity)
        return self._page(token) if identity == handshake.OWNER else None

    def _is_genuine(self, identity: str, token: str) -> bool:
        """Return whether the token belongs to this identity. Genuine tokens are remembered: a check costs 10 us."""
        digest = hashlib.sha256(token.encode()).digest()
        if digest in self._genuine:
            return True
        verifier = self.verifier(identity)
        if verifier is None or not handshake.has_token(verifier, token):
            return False
        if len(self._genuine) >= GENUINE_MAX:
            self._genuine.clear()
        self._genuine.add(digest)
        return True

    def principal(self, identity: str) -> Principal | None:
        """Return the principal of a credential's identity; None: the server does not admit it now."""
        if identity == handshake.OWNER:
            return OWNER
        if (number := credentials.token_id(identity)) is not None:
            personal = self._personal(number)
            return None if personal is None else self.role_of(personal.user)
        principal = credentials.signed_principal(identity)
        return None if principal is None or credentials.is_over(principal, self._now()) else principal

    def now(self) -> float:
        """Return the time, seconds since 1970."""
        return self._now()

    def valid_until(self, principal: Principal, token: str) -> float:
        """Return until when a principal with this token need not be checked again, seconds since 1970; 0: always check.

        Whatever is revoked or changed before then increases `generation`.
        """
        if principal == OWNER or isinstance(principal, Agent):
            return math.inf
        number = credentials.token_id(handshake.identity_of(token))
        personal = None if number is None else self._personal(number)
        return 0.0 if personal is None else personal.expires_at

    def role_of(self, user: str) -> Principal | None:
        """Return the principal of a user with the groups that are known; None: the user has no role here."""
        return self.roles.principal(user, self.groups_of(user))

    def verifier(self, identity: str) -> Verifier | None:
        """Return what proves that a client has the credential of this identity, and that we are its server."""
        if (number := credentials.token_id(identity)) is not None:
            personal = self._personal(number)
            return None if personal is None else personal.verifier
        principal = self.principal(identity)
        if isinstance(principal, Agent):
            return credentials.signed_verifier(identity, self._stored.agent_key)
        if isinstance(principal, Reader):
            return credentials.signed_verifier(identity, self._stored.link_key)
        return self._owner if identity == handshake.OWNER else None

    def _personal(self, number: int) -> PersonalToken | None:
        """Return a personal token that is valid now."""
        personal = self._stored.tokens.get(number)
        return None if personal is None or self._now() >= personal.expires_at else personal

    def _page(self, token: str) -> Reader | PageUser | Invited | None:
        """Return the principal of the key of a page's session, or of a code for one."""
        invited = self._codes.get(token)
        if invited is not None:
            return None if credentials.is_over(invited, self._now()) else invited
        principal, until = self._sessions.get(token, (None, 0.0))
        return principal if self._now() < until else None

    # -- issuing -----------------------------------------------------------------------------------------------

    def agent_token(self, agent: Agent) -> str:
        """Return the token of an agent. It is always the same."""
        return credentials.agent_token(agent, self._stored.agent_key)

    def link_key(self, days: float, workflow_id: int | None) -> tuple[str, int]:
        """Return the key of a link to the web page, and when it expires, seconds since 1970."""
        until = int(self._now() + days * credentials.DAY_SECONDS)
        return credentials.reader_token(Reader(until, workflow_id), self._stored.link_key), until

    def page_code(self, page_user: PageUser | Reader) -> tuple[str, int]:
        """Return a code that can be exchanged once for a page's session, and when it expires, seconds since 1970."""
        code, until = credentials.new_secret(), int(self._now()) + credentials.CODE_SECONDS
        _keep(self._codes, code, Invited(page_user, until), PAGE_CODES_MAX)
        return code, until

    def open_page(self, principal: Reader | Invited) -> str | None:
        """Return the key of a page's session, or None if the code was already exchanged.

        The key is useless to another process that takes over this process's port.
        """
        if isinstance(principal, Reader):
            longest = self._now() + credentials.SESSION_DAYS * credentials.DAY_SECONDS
            return self._session(principal, longest if principal.until == credentials.FOREVER else principal.until)
        code = next((code for code, invited in self._codes.items() if invited is principal), None)
        if code is None:
            return None
        del self._codes[code]
        return self._session(principal.page_user, self._now() + credentials.SESSION_DAYS * credentials.DAY_SECONDS)

    def page_session(self, page_user: PageUser | Reader) -> str:
        """Return the key of a session for a user who is authenticated by other means than a code or a link."""
        return self._session(page_user, self._now() + credentials.SESSION_DAYS * credentials.DAY_SECONDS)

    def _session(self, principal: Reader | PageUser, until: float) -> str:
        key = credentials.new_secret()
        _keep(self._sessions, key, (principal, until), PAGE_SESSIONS_MAX)
        return key

    def close_pages(self, user: str | None = None) -> None:
        """Close the sessions of web pages, and invalidate the codes for new ones; of one user, or all of them."""
        if user is None:
            self._sessions.clear()
            self._codes.clear()
            return
        for key in [key for key, (principal, _) in self._sessions.items() if principal.user == user]:
            del self._sessions[key]
        for code in [code for code, invited in self._codes.items() if invited.page_user.user == user]:
            del self._codes[code]


def _keep(kept: OrderedDict[str, _Kept], key: str, value: _Kept, most: int) -> None:
    """Add an entry, and remove the oldest one if there are too many."""
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
