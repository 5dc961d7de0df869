"""Secrets are removed from what a reader may see, and nothing else is."""

import pytest

from jobmon.core.redaction import HIDDEN, is_secret_name, redacted, secret_names


@pytest.mark.parametrize(
    "name",
    [
        *("DB_PASSWORD", "passwd", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "api-key", "PGPASS_PWD", "PRIVATE_KEY"),
        *("CI_PAT", "BASIC_AUTH", "credentials", "AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PATH", "KEYBOARD", "OMP_NUM_THREADS", "monkey", "PASSES", "AUTHOR", "PYTHONPATH"])
def test_names_of_other_things(name):
    assert not is_secret_name(name)


def test_every_value_of_env_is_hidden_and_names_stay():
    attempt = {"attempts": [{"requested_resources": {"cores": 1, "env": {"A": "1", "B": {"c": 2}}}}]}
    shown = redacted(attempt)
    assert shown == {"attempts": [{"requested_resources": {"cores": 1, "env": {"A": HIDDEN, "B": HIDDEN}}}]}
    assert attempt["attempts"][0]["requested_resources"]["env"]["A"] == "1"


def test_elsewhere_names_decide():
    assert redacted({"connection": {"api_token": "x", "host": "h", "password": ""}}) == {
        "connection": {"api_token": HIDDEN, "host": "h", "password": ""}
    }


def test_a_secret_need_not_be_a_text():
    given = {"tokens": ["x", 7, ""], "secret": {"name": "x", "pins": [1, None]}, "has_password": True, "password": 42}
    hidden = {"tokens": [HIDDEN, HIDDEN, ""], "secret": {"name": HIDDEN, "pins": [HIDDEN, None]}}
    assert redacted({"connection": given}) == {"connection": {**hidden, "has_password": True, "password": HIDDEN}}


@pytest.mark.parametrize("requested", [{}, {"env": None}, {"env": {}}, {"env": {"PATH": "x"}}])
def test_nothing_to_warn_of(requested):
    assert secret_names(requested) == []


def test_names_to_warn_of():
    assert secret_names({"env": {"Z_TOKEN": "1", "A_PASSWORD": "2", "PATH": "3"}}) == ["A_PASSWORD", "Z_TOKEN"]
