"""Settings of a login provider: complete, and nowhere a secret travels unencrypted."""

from __future__ import annotations

import pytest

from jobmon.core.configuration import JobmonConfig
from jobmon.core.exceptions import ConfigError
from jobmon.server.oidc import OidcSettings

GOOD = {
    "auth": {
        "oidc_issuer": "https://login.example.org/realms/x",
        "oidc_client_id": "jobmon",
        "oidc_client_secret": "hush",
        "oidc_scopes": "openid, profile groups",
    },
    "server": {"public_url": "https://jobmon.example.org/below"},
}


def config(**changes):
    found = JobmonConfig()
    for section, settings in GOOD.items():
        for key, value in settings.items():
            found.set(section, key, changes.get(key, value))
    for key in changes.keys() - GOOD["auth"].keys() - GOOD["server"].keys():
        found.set("auth", key, changes[key])
    return found


def test_without_an_issuer_there_is_no_provider():
    assert OidcSettings.of(config(oidc_issuer="", oidc_client_id="")) == OidcSettings()


def test_the_provider_leads_back_to_the_page():
    for url in ("https://jobmon.example.org/below", "https://jobmon.example.org/below/"):
        settings = OidcSettings.of(config(public_url=url))
        assert settings.redirect_uri == "https://jobmon.example.org/below/"
    assert settings.scopes == ("openid", "profile", "groups")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("host", ["127.0.0.1:9400", "localhost:9400", "[::1]:9400"])
def test_on_this_host_no_encryption_is_needed(host):
    assert OidcSettings.of(config(oidc_issuer=f"http://{host}")).issuer == f"http://{host}"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"oidc_issuer": "http://login.example.org"}, "auth.oidc_issuer: .* must begin with https://"),
        ({"oidc_issuer": "login.example.org"}, "auth.oidc_issuer must be an address that begins with https://"),
        ({"oidc_client_id": ""}, "needs auth.oidc_client_id"),
        ({"public_url": ""}, "needs server.public_url"),
        ({"public_url": "http://jobmon.example.org"}, "server.public_url: .* must begin with https://"),
        ({"oidc_scopes": "profile"}, "must contain openid"),
        ({"oidc_token_days": 0}, "auth.oidc_token_days must be a number above 0"),
        ({"oidc_user_claim": ""}, "auth.oidc_user_claim must be the name of a claim"),
    ],
)
def test_settings_that_are_incomplete_or_not_safe_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        OidcSettings.of(config(**changes))
