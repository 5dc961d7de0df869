"""Define who sends a request, what that principal may do, and how its credentials are issued and verified.

The server derives a principal from the connection and its credential, never from a message. Pure functions.

| credential | principal | valid until |
| --- | --- | --- |
| peer's uid on the Unix socket; the token in the access file | `OWNER` | the server process exits |
| the token that a shared server was configured with | `OWNER` | it is configured with another one |
| personal token of a shared server | by role (`server.roles`) | it expires or is revoked |
| header of the proxy in front of a shared server | by role | of this request |
| token of an agent: workers, packed jobs, host agents | `Agent` | the workflow has ended, or the agent is closed |
| key of a shared link to the web page | `Reader` | it expires, or all links are revoked |
| code in the address that `jobmon ui` prints | `Invited` | it is exchanged, or expires |
| key of a page's session, in exchange for a code | `PageUser` | it expires, or the server process exits |

Tokens of agents and readers are not stored: they name their scope and carry a MAC under a key in the database, so they
survive a restart and a takeover of the server. Form: "jobmon-agent.WORKFLOW.SCOPE.MAC", "jobmon-page.SCOPE.UNTIL.MAC".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from jobmon.agent.handshake import NAMED_PREFIX, Verifier, mac, verifier_of

KEY_BYTES: Final = 32
#: Default validity of a link to the web page, days.
LINK_DAYS: Final = 7.0
LINK_DAYS_MAX: Final = 3_650.0
DAY_SECONDS: Final = 86_400
#: How long the session of a page is valid, days.
SESSION_DAYS: Final = 7.0
#: How long the code in the address that `jobmon ui` prints is valid, seconds.
CODE_SECONDS: Final = 3_600
#: Default validity of a personal token, days.
TOKEN_DAYS: Final = 90.0
_AGENT: Final = f"{NAMED_PREFIX}agent"
_READER: Final = f"{NAMED_PREFIX}page"
_USER: Final = f"{NAMED_PREFIX}user"
_NUMBER_DIGITS_MAX: Final = 19


class Right(IntEnum):
    """What a route requires.

    OPEN: nothing. ENTER: to open the web page: to get a code for it, and to exchange a code or the key of a link for a
    session. READ: to read, within a reader's scope. AGENT: to run the commands of a workflow and to report on them.
    STEER: to control recorded workflows without changing what they run. WRITE: to define and control workflows. Both
    only one's own, if the route names a workflow. ADMINISTER: to change what all workflows of a server share.
    """

    OPEN = 0
    ENTER = 1
    READ = 2
    AGENT = 3
    STEER = 4
    WRITE = 5
    ADMINISTER = 6


@dataclass(frozen=True, slots=True)
class Owner:
    """The user of an embedded server, or an administrator of a shared one. May do everything.

    Args:
        user: the administrator, if known.
    """

    user: str = ""

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return f"administrator {self.user}" if self.user else "owner"


@dataclass(frozen=True, slots=True)
class User:
    """A user of a shared server. Changes only what it owns; what it reads, the setting `auth.visibility` decides.

    Args:
        user: the name.
        groups: the user's groups, as far as they are known. They do not distinguish principals.
    """

    user: str
    groups: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return f"user {self.user}"


class Part(StrEnum):
    """The part of a workflow for which an agent's credential is valid."""

    WORKFLOW = "workflow"
    AGENT = "agent"
    BATCH = "batch"


#: First letter of a scope -> part of the workflow.
_PARTS: Final = {"a": Part.AGENT, "b": Part.BATCH}


@dataclass(frozen=True, slots=True)
class Agent:
    """Runs commands of one workflow.

    Args:
        workflow_id: the workflow.
        scope: its part of the workflow: "a" and the id of an agent, "b" and the number of a batch; "": every part.
    """

    workflow_id: int
    scope: str = ""

    @classmethod
    def of(cls, part: Part, workflow_id: int, number: int) -> Agent:
        """Return the principal of an agent, or of the jobs of a batch."""
        return cls(workflow_id, f"{part[0]}{number}")

    @property
    def part(self) -> tuple[Part, int | None]:
        """The part of the workflow, and its number; None: the whole workflow, or an invalid scope."""
        return _PARTS.get(self.scope[:1], Part.WORKFLOW), _number(self.scope[1:])

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return f"agent {self.workflow_id}{self.scope and '/'}{self.scope}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads, for example as a web page; sees no secrets.

    Args:
        until: when this right expires, seconds since 1970.
        workflow_id: the workflow that it may read; None: all.
        user: the user who has this right by role; "": whoever has the link.
    """

    until: int
    workflow_id: int | None = None
    user: str = ""

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return f"reader {self.user}" if self.user else "reader"


@dataclass(frozen=True, slots=True)
class PageUser:
    """A person at the web page: reads and steers what the person may, but runs no command and sees no secrets.

    Args:
        user: the user of a shared server; None: the owner.
        groups: as those of `User`.
    """

    user: str | None = None
    groups: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return f"{OWNER.name if self.user is None else User(self.user).name} (page)"


@dataclass(frozen=True, slots=True)
class Invited:
    """Has a code that can be exchanged once for the session of a page; until then, it also reads.

    Args:
        page_user: the principal of that session.
        until: when the code expires, seconds since 1970.
    """

    page_user: PageUser | Reader
    until: float

    @property
    def name(self) -> str:
        """Name in the audit trail."""
        return "page code"


#: How long a principal is a reader that has this right by role.
FOREVER: Final = 2**62
Principal = Owner | User | Agent | Reader | PageUser | Invited
OWNER: Final = Owner()
#: The rights of principals that have few.
_RIGHTS: Final[dict[type[Principal], tuple[Right, ...]]] = {
    Agent: (Right.AGENT,),
    Reader: (Right.ENTER, Right.READ),
    PageUser: (Right.READ, Right.STEER),
    Invited: (Right.ENTER, Right.READ),
}


def may(principal: Principal, right: Right) -> bool:
    """Return whether this kind of principal may use a route that requires a right.

    Whether the workflow is its own, or in its scope, is decided where the workflow is known.
    """
    if right is Right.OPEN or isinstance(principal, Owner):
        return True
    if isinstance(principal, User):
        return right is not Right.ADMINISTER
    return right in _RIGHTS[type(principal)]


def sees_secrets(principal: Principal) -> bool:
    """Return whether the values of `env` are shown to a principal: never on the web page."""
    return not isinstance(principal, Reader | PageUser | Invited)


def new_key() -> bytes:
    """Return a key for issuing tokens."""
    return os.urandom(KEY_BYTES)


def new_secret() -> str:
    """Return a new secret: a token, or the key of a session."""
    return os.urandom(KEY_BYTES).hex()


def _signed(payload: str, key: bytes) -> str:
    return f"{payload}.{mac(key, payload).hex()}"


def agent_token(agent: Agent, key: bytes) -> str:
    """Return the token of an agent. It is always the same, so a repeated request gets the same response."""
    return _signed(f"{_AGENT}.{agent.workflow_id}.{agent.scope or '-'}", key)


def reader_token(reader: Reader, key: bytes) -> str:
    """Return the key of a link to the web page."""
    scope = "-" if reader.workflow_id is None else str(reader.workflow_id)
    return _signed(f"{_READER}.{scope}.{reader.until}", key)


def user_token(token_id: int) -> str:
    """Return a new personal token. Store its verifier under this id, never the token."""
    return f"{_USER}.{token_id}.{os.urandom(KEY_BYTES).hex()}"


def signed_principal(identity: str) -> Agent | Reader | None:
    """Return the principal that an identity names, or None if it is not an agent or reader. This proves nothing yet."""
    kind, _, rest = identity.partition(".")
    scope, _, last = rest.partition(".")
    if kind == _AGENT and (workflow_id := _number(scope)) is not None and _is_word(last):
        return Agent(workflow_id, "" if last == "-" else last)
    if kind == _READER and (until := _number(last)) is not None and (scope == "-" or _number(scope) is not None):
        return Reader(until, None if scope == "-" else _number(scope))
    return None


def token_id(identity: str) -> int | None:
    """Return the id of the personal token that an identity names, or None if it names none."""
    kind, _, number = identity.partition(".")
    return _number(number) if kind == _USER else None


def signed_verifier(identity: str, key: bytes) -> Verifier:
    """Return the verifier of the token that was issued for an identity of `signed_principal`."""
    return verifier_of(_signed(identity, key))


def is_over(principal: Principal, now: float) -> bool:
    """Return whether a principal's validity has expired.

    Args:
        principal: the principal, as its credential names it.
        now: current time, seconds since 1970.
    """
    return isinstance(principal, Reader | Invited) and now >= principal.until


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX else None


def _is_word(text: str) -> bool:
    return text == "-" or (text.isascii() and text.isalnum() and len(text) <= _NUMBER_DIGITS_MAX + 1)
