"""Principals, their rights, and their tokens."""

from __future__ import annotations

import pytest

from jobmon.agent.handshake import has_token, identity_of
from jobmon.core import credentials
from jobmon.core.credentials import OWNER, Agent, Invited, PageUser, Principal, Reader, Right, User

KEY = b"k" * 32
OTHER_KEY = b"l" * 32
AGENTS = [Agent(7), Agent(7, "a12"), Agent(9_000_000_000, "b3")]
READERS = [Reader(1_800_000_000), Reader(0, 4)]


@pytest.mark.parametrize("principal", [*AGENTS, *READERS])
def test_a_token_names_its_principal_and_only_our_key_signs_it(principal: Agent | Reader) -> None:
    """The server needs to store neither."""
    issue = credentials.agent_token if isinstance(principal, Agent) else credentials.reader_token
    token = issue(principal, KEY)  # type: ignore[operator]
    assert credentials.signed_principal(identity_of(token)) == principal
    assert has_token(credentials.signed_verifier(identity_of(token), KEY), token)
    assert not has_token(credentials.signed_verifier(identity_of(token), OTHER_KEY), token)


def test_the_scope_of_a_token_cannot_be_changed() -> None:
    """Its MAC covers it."""
    token = credentials.agent_token(Agent(7, "b3"), KEY)
    for changed in (token.replace(".7.", ".8."), token.replace(".b3.", ".-."), token[:-1], f"{token}0", ""):
        assert not has_token(credentials.signed_verifier(identity_of(changed), KEY), changed)


@pytest.mark.parametrize(
    "identity",
    [
        *("", "owner", "jobmon-agent", "jobmon-agent.x.a1", "jobmon-agent.7.", "jobmon-agent.7.a/1"),
        *("jobmon-agent.-1.a1", f"jobmon-agent.{'9' * 5000}.a1", "jobmon-agent.\u0663.a"),
        *("jobmon-page.-.soon", "jobmon-page..5", "jobmon-user.4"),
    ],
)
def test_other_identities_name_nobody(identity: str) -> None:
    """Malformed tokens raise no error either."""
    assert credentials.signed_principal(identity) is None


def test_a_personal_token_names_its_row() -> None:
    """Two tokens for one row differ."""
    token = credentials.user_token(4)
    assert credentials.token_id(identity_of(token)) == 4
    assert token != credentials.user_token(4)
    assert credentials.token_id("jobmon-agent.4") is None


def test_a_reader_is_over_at_its_date() -> None:
    """Others have no date in their token."""
    assert not credentials.is_over(Reader(100), 99.9)
    assert credentials.is_over(Reader(100), 100)
    assert not credentials.is_over(Agent(7), 1e12)


@pytest.mark.parametrize(
    ("principal", "rights"),
    [
        (OWNER, set(Right)),
        (User("ada"), set(Right) - {Right.ADMINISTER}),
        (Agent(7), {Right.OPEN, Right.AGENT}),
        (Reader(100), {Right.OPEN, Right.ENTER, Right.READ}),
        (PageUser(), {Right.OPEN, Right.READ, Right.STEER}),
        (PageUser("ada"), {Right.OPEN, Right.READ, Right.STEER}),
        (Invited(PageUser(), 100.0), {Right.OPEN, Right.ENTER, Right.READ}),
    ],
)
def test_rights_by_kind_of_principal(principal: Principal, rights: set[Right]) -> None:
    """The whole table."""
    assert {right for right in Right if credentials.may(principal, right)} == rights


def test_names_in_the_audit_trail_tell_principals_apart() -> None:
    """And contain no secret."""
    principals = OWNER, User("ada"), Agent(7), Agent(7, "a1"), Reader(1), PageUser(), PageUser("ada")
    assert [principal.name for principal in principals] == [
        *("owner", "user ada", "agent 7", "agent 7/a1", "reader", "owner (page)", "user ada (page)")
    ]
