"""Keys, personal tokens and groups in the database. Changes return the credentials that `Authority` then needs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import handshake
from jobmon.agent.handshake import Verifier
from jobmon.core import credentials
from jobmon.core.constants import Actor
from jobmon.core.wire.credentials import GROUPS_MAX, Token, TokenResponse, TokensResponse
from jobmon.server.authority import PersonalToken, Stored
from jobmon.server.constructs import delete, select, update
from jobmon.server.models import personal_token, signing_key, user_group
from jobmon.server.problems import Forbidden, InvalidValue, NotFound
from jobmon.server.sql import param, statement
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Delete, Select, Update

    from jobmon.core.wire.credentials import TokenRequest
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

AGENT_KEY: Final = "agent"
LINK_KEY: Final = "link"
#: Maximum number of valid personal tokens of one user.
TOKENS_PER_USER_MAX: Final = 100
_MICROSECONDS: Final = 1_000_000

p, ug = personal_token.c, user_group.c


@statement
def _keys() -> Select[Any]:
    return select(signing_key.c.name, signing_key.c.key)


@statement
def _replace_key() -> Update:
    return update(signing_key).values(key=param("key")).where(signing_key.c.name == param("name"))


@statement
def _tokens() -> Select[Any]:
    return select(
        *(p.id, p.user_name, p.label, p.created_at, p.expires_at, p.revoked_at, p.stored_key, p.server_key)
    ).order_by(p.id)


@statement
def _set_keys() -> Update:
    changes = {"stored_key": param("stored"), "server_key": param("server")}
    return update(personal_token).values(changes).where(p.id == param("id"))


@statement
def _revoke() -> Update:
    return update(personal_token).values(revoked_at=param("now")).where(p.id == param("id"), p.revoked_at.is_(None))


@statement
def _groups() -> Select[Any]:
    return select(ug.user_name, ug.group_name)


@statement
def _groups_of() -> Select[Any]:
    return select(ug.group_name).where(ug.user_name == param("user"))


@statement
def _delete_groups() -> Delete:
    return delete(user_group).where(ug.user_name == param("user"))


def load(tx: Transaction) -> Stored:
    """Return the credentials in the database; create missing keys."""
    keys = dict(tx.rows(_keys))
    for name in (AGENT_KEY, LINK_KEY):
        if name not in keys:
            keys[name] = credentials.new_key().hex()
            tx.insert_many(signing_key, ("name", "key"), [(name, keys[name])])
    tokens = {
        row[0]: PersonalToken(row[1], Verifier(bytes.fromhex(row[6]), bytes.fromhex(row[7])), row[4] / _MICROSECONDS)
        for row in tx.rows(_tokens)
        if row[5] is None
    }
    return Stored(bytes.fromhex(keys[AGENT_KEY]), bytes.fromhex(keys[LINK_KEY]), tokens, _groups_by_user(tx))


def _groups_by_user(session: Session) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for user, group in session.rows(_groups):
        found[user].add(group)
    return {user: frozenset(groups) for user, groups in found.items()}


def set_groups(tx: Transaction, user: str, groups: frozenset[str]) -> Stored:
    """Replace the groups of a user. Idempotent.

    Raises:
        InvalidValue: there are too many.
    """
    if len(groups) > GROUPS_MAX:
        raise InvalidValue(f"groups: {user} would have {len(groups)} groups; at most {GROUPS_MAX} are possible.")
    if frozenset(tx.column(_groups_of, user=user)) != groups:
        tx.run(_delete_groups, user=user)
        tx.insert_many(user_group, ("user_name", "group_name"), [(user, group) for group in sorted(groups)])
        tx.audit(Actor.USER, "set groups", None, user=user, groups=sorted(groups))
    return load(tx)


def create_token(
    tx: Transaction, request: TokenRequest, groups: frozenset[str] | None = None
) -> tuple[TokenResponse, Stored]:
    """Create a personal token.

    Args:
        tx: the transaction.
        request: describes the token.
        groups: the groups of its user from now on; None: those that are known.

    Raises:
        InvalidValue: it names no user, or the user has too many tokens.
    """
    if not request.user:
        raise InvalidValue("user: specify the user of the token (--user).")
    mine = [row for row in tx.rows(_tokens) if row[1] == request.user and row[5] is None and row[4] > tx.now]
    if len(mine) >= TOKENS_PER_USER_MAX:
        raise InvalidValue(f"{request.user} has {len(mine)} tokens; revoke some first: jobmon token revoke ID.")
    expires_at = tx.now + round(request.days * credentials.DAY_SECONDS * _MICROSECONDS)
    identity = tx.insert(
        personal_token,
        user_name=request.user,
        label=request.label,
        stored_key="",
        server_key="",
        created_at=tx.now,
        expires_at=expires_at,
    )
    secret = credentials.user_token(identity)
    verifier = handshake.verifier_of(secret)
    tx.run(_set_keys, stored=verifier.stored_key.hex(), server=verifier.server_key.hex(), id=identity)
    tx.audit(Actor.USER, "create token", None, user=request.user, token=identity, label=request.label)
    if groups is not None:
        set_groups(tx, request.user, groups)
    stored = load(tx)
    row = (identity, request.user, request.label, tx.now, expires_at, None)
    return TokenResponse(token=_token(row, stored.groups), secret=secret), stored


def list_tokens(session: Session, user: str | None) -> TokensResponse:
    """Return the tokens of a user; None: of all users."""
    groups = _groups_by_user(session)
    rows = session.rows(_tokens)
    return TokensResponse(tokens=[_token(row, groups) for row in rows if user is None or row[1] == user])


def revoke_token(tx: Transaction, identity: int, user: str | None) -> tuple[Stored, str]:
    """Revoke a token of this user; None: of any user. Idempotent. Also return whose it was.

    Raises:
        NotFound: there is no such token.
        Forbidden: it belongs to another user.
    """
    owners = {row[0]: row[1] for row in tx.rows(_tokens)}
    if identity not in owners:
        raise NotFound.of("token", identity)
    if user is not None and owners[identity] != user:
        raise Forbidden(f"Token {identity} belongs to another user.")
    if tx.changed(_revoke, now=tx.now, id=identity):
        tx.audit(Actor.USER, "revoke token", None, user=owners[identity], token=identity)
    return load(tx), owners[identity]


def revoke_links(tx: Transaction) -> Stored:
    """Revoke all links to the web page."""
    tx.run(_replace_key, name=LINK_KEY, key=credentials.new_key().hex())
    tx.audit(Actor.USER, "revoke links", None)
    return load(tx)


def _token(row: Sequence[Any], groups: Mapping[str, frozenset[str]]) -> Token:
    return Token(
        id=row[0],
        user=row[1],
        label=row[2],
        created_at=to_datetime(row[3]),
        expires_at=to_datetime(row[4]),
        revoked_at=None if row[5] is None else to_datetime(row[5]),
        groups=sorted(groups.get(row[1], ())),
    )
