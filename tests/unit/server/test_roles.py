"""Roles of users and groups, and which headers come from the proxy."""

from __future__ import annotations

import pytest

from jobmon.core.configuration import JobmonConfig
from jobmon.core.credentials import Owner, Reader, User
from jobmon.core.exceptions import ConfigError
from jobmon.server.roles import Members, Proxy, Roles, Sharing, UntrustedProxy
from jobmon.server.settings import Settings

SECRET = "a-secret-of-the-proxy"
ROLES = Roles(
    administrators=Members.of(["root", "@admins"]),
    users=Members.of(["ada", "@biology"]),
    readers=Members.of(["@auditors"]),
)
PROXY = Proxy.of("X-Remote-User", "X-Remote-Groups", SECRET, has_socket=False)


def role(user, *groups, roles=ROLES):
    return roles.principal(user, frozenset(groups))


def test_the_strongest_role_counts():
    assert role("root") == Owner("root")
    assert role("eve", "auditors", "admins") == Owner("eve")
    assert role("ada", "auditors") == User("ada")
    assert role("bob", "biology") == User("bob")
    assert isinstance(role("bob", "auditors"), Reader)
    assert role("eve", "physics") is None
    assert role("admins") is role("@admins") is None, "a user is not a group"


def test_without_users_everybody_but_readers_is_one():
    roles = Roles(readers=Members.of(["guest"]))
    assert role("ada", roles=roles) == User("ada")
    assert isinstance(role("guest", roles=roles), Reader)


def test_an_administrator_is_named_in_the_audit_trail():
    assert (Owner("ada").name, Owner().name) == ("administrator ada", "owner")


def test_the_proxy_names_user_and_groups():
    headers = {
        b"x-remote-user": b"ada",
        b"x-remote-groups": b"biology, hpc;x",
        b"x-jobmon-proxy-secret": SECRET.encode(),
    }
    assert PROXY.user_of(headers, is_local=False) == ("ada", {"biology", "hpc", "x"})
    assert PROXY.user_of(headers | {b"x-remote-user": b" "}, is_local=False) is None
    assert PROXY.user_of({}, is_local=False) is None


@pytest.mark.parametrize("secret", [{}, {b"x-jobmon-proxy-secret": b""}, {b"x-jobmon-proxy-secret": b"guessed"}])
@pytest.mark.parametrize("is_local", [True, False])
def test_nobody_else_names_a_user(secret, is_local):
    with pytest.raises(UntrustedProxy, match="only the proxy"):
        PROXY.user_of({b"x-remote-user": b"ada", **secret}, is_local=is_local)


def test_without_a_secret_only_the_socket_is_trusted():
    proxy = Proxy.of("X-Remote-User", "", "", has_socket=True)
    assert proxy.user_of({b"x-remote-user": b"ada", b"": b"admins"}, is_local=True) == ("ada", frozenset())
    with pytest.raises(UntrustedProxy):
        proxy.user_of({b"x-remote-user": b"ada", b"x-jobmon-proxy-secret": b""}, is_local=False)


@pytest.mark.parametrize("name", [b"a" * 256, b"a\x1b[31m", b"a\tb"])
def test_a_name_that_cannot_be_stored_or_shown_is_refused(name):
    with pytest.raises(UntrustedProxy, match="not the name of a user"):
        PROXY.user_of({b"x-remote-user": name, b"x-jobmon-proxy-secret": SECRET.encode()}, is_local=False)


def test_a_server_without_a_proxy_ignores_the_header():
    assert Proxy().user_of({b"x-remote-user": b"root", b"": b"root"}, is_local=True) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("X-Remote-User", "", ""), "trusted only with auth.proxy_secret"),
        (("X-Remote-User", "", "short"), "at least 16 characters"),
        (("X Remote", "", SECRET), "proxy_header: 'X Remote' is not the name"),
        (("X-Remote-User", "a:b", SECRET), "proxy_groups_header: 'a:b'"),
    ],
)
def test_settings_that_are_not_safe_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Proxy.of(*settings, has_socket=False)


@pytest.mark.parametrize(
    ("settings", "readable"),
    [
        (("all", ()), None),
        (("own", ()), {"ada"}),
        (("group", ()), {"ada", "bob", "eve"}),
        (("group", ("@biology", "@x")), {"ada", "bob"}),
        (("group", ("@y",)), {"ada"}),
    ],
)
def test_users_read_the_workflows_of_those_who_share_a_group(settings, readable):
    groups = {"bob": frozenset({"biology"}), "eve": frozenset({"staff", "physics"}), "kim": frozenset({"physics"})}
    assert Sharing.of(*settings).readable_users("ada", frozenset({"biology", "staff"}), groups) == readable


def test_without_a_group_nobody_is_in_the_same_one():
    assert Sharing.of("group", ()).readable_users("ada", frozenset(), {"bob": frozenset()}) == {"ada"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("visibility", "team", "auth.visibility must be 'all', 'group' or 'own', not 'team'"),
        ("sharing_groups", "biology", "auth.sharing_groups must be @groups.*, not 'biology'"),
        ("sharing_groups", ["@physics", "biology"], "auth.sharing_groups must be @groups"),
    ],
)
def test_settings_of_visibility_that_are_wrong_are_refused(key, value, sentence):
    config = JobmonConfig(dict_config={"auth": {key: value}})
    with pytest.raises(ConfigError, match=sentence):
        Settings.from_config(config, database_uri="sqlite://")


def test_sharing_is_what_the_settings_say():
    config = JobmonConfig(dict_config={"auth": {"visibility": "group", "sharing_groups": "@biology, @physics"}})
    assert Settings.from_config(config, database_uri="sqlite://").sharing == Sharing.of(
        "group", ["@physics", "@biology"]
    )
    assert Settings.from_config(JobmonConfig(dict_config={}), database_uri="sqlite://").sharing == Sharing()
