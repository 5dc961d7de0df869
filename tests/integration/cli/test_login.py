"""A shared server: tested before it is saved, saved for its user only, forgotten, and described by commands."""

from __future__ import annotations

import os
import re
import stat
from importlib import metadata

import pytest
import yaml
from tests.databases import current

from jobmon.server import migrations
from jobmon.server.migrations.upgrading import HEAD

TOKEN = "a-secret-word"


@pytest.fixture(scope="module")
def institute(session, tmp_path_factory, institute_server):
    """Start a shared server; return its address."""
    folder = tmp_path_factory.mktemp("institute")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    with institute_server(folder, TOKEN, environment | {"HOME": str(folder)}) as address:
        yield address


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.sqlite_only(reason="it needs a database of its own")
def test_a_server_is_tried_kept_used_and_forgotten(session, institute, home):
    place = {"HOME": str(home)}
    refused = session.invoke("login", institute, code=2, input="wrong\n", env=place)
    assert "token" in refused
    assert not (home / ".jobmon.yaml").exists()
    told = session.invoke("login", institute, input=f"{TOKEN}\n", env=place)
    assert f"{institute} (version " in told
    file = home / ".jobmon.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert yaml.safe_load(file.read_text()) == {"http": {"service_url": institute, "token": TOKEN}}
    assert session.invoke("workflow", "status", "--all-users", env=place) == "No workflows.\n"
    assert TOKEN not in session.invoke("config", "show", env=place)
    assert "own again" not in session.invoke("login", "--forget", env=place)
    assert "fine" in session.invoke("workflow", "status", "--all-users", env=place)


def test_what_is_no_server_is_not_kept(session, home):
    place = {"HOME": str(home)}
    for address, code, said in (
        ("jobmon.example.org", 2, "must begin with http"),
        ("http://127.0.0.1:9", 3, "does not respond to"),
        ("ftp://x", 2, "must begin with http"),
    ):
        assert said in session.invoke("login", address, code=code, input="\n", env=place)
    session.invoke("login", code=2, env=place)
    session.invoke("login", "http://x", "--forget", code=2, env=place)
    assert not (home / ".jobmon.yaml").exists()


def test_what_keeps_it_from_having_effect_is_said(session, institute, home):
    place = {"HOME": str(home), "JOBMON__HTTP__SERVICE_URL": "http://127.0.0.1:9", "JOBMON__HTTP__TOKEN": TOKEN}
    result = session.invoke("login", institute, input=f"{TOKEN}\n", env=place, both=True)
    assert "JOBMON__HTTP__SERVICE_URL in the environment takes precedence" in result


@pytest.mark.sqlite_only(reason="it needs a database of its own")
def test_users_get_tokens_use_them_and_lose_them(session, institute, home):
    place = {"HOME": str(home)}
    session.invoke("login", institute, input=f"{TOKEN}\n", env=place)
    assert "--user" in session.invoke("token", "create", code=2, env=place)
    first = session.json("token", "create", "--user", "ada", "--label", "laptop", env=place)
    second = session.json("token", "create", "--user", "bob", "--days", "1", env=place)
    assert (first["token"]["user"], first["token"]["label"]) == ("ada", "laptop")
    assert "ada" in session.invoke("token", "list", env=place)
    assert first["secret"] not in session.invoke("token", "list", env=place)
    session.invoke("login", institute, input=f"{first['secret']}\n", env=place)
    assert [one["user"] for one in session.json("token", "list", env=place)] == ["ada"]
    refused = session.invoke("token", "revoke", second["token"]["id"], code=2, env=place)
    assert "belongs to another user" in refused
    session.invoke("ui", "--revoke", code=2, env=place)
    session.invoke("token", "revoke", first["token"]["id"], env=place)
    assert "token" in session.invoke("token", "list", code=2, env=place)
    for wrong in (("create", "--days", "0"), ("create", "--days", "-1"), ("revoke", "x"), ("revoke", "0")):
        session.invoke("token", *wrong, code=2, env=place)


def test_commands_that_describe_the_server_describe_the_shared_one(session, institute, tmp_path):
    place = {"JOBMON__HTTP__SERVICE_URL": institute, "JOBMON__HTTP__TOKEN": TOKEN}
    place["JOBMON_DATA_DIR"] = str(tmp_path / "empty")
    found = session.json("server", "status", env=place)
    assert (found["running"], found["address"], found["active_runs"]) == (True, institute, 0)
    assert found["database"] == current().dialect
    assert re.search(rf"address +{institute}\n", session.invoke("server", "status", env=place))
    version = f"server {metadata.version('jobmon')} at {institute}\n"
    assert version in session.invoke("version", "--components", env=place)
    revision = session.json("db", "revision", env=place)
    assert (revision["revision"], revision["state"], revision["known_to"]) == (HEAD, "current", institute)
    assert f"{current().dialect} of the server at {institute}" in session.invoke("db", "revision", env=place)
    assert not (tmp_path / "empty").exists()


def test_a_shared_server_that_does_not_respond_is_named(session, tmp_path):
    nowhere = "http://127.0.0.1:9"
    place = {"JOBMON__HTTP__SERVICE_URL": nowhere, "JOBMON_DATA_DIR": str(tmp_path / "empty")}
    assert session.json("server", "status", code=3, env=place) == {"running": False, "address": nowhere}
    assert nowhere in session.invoke("server", "status", code=3, env=place)
    assert f"server - ({nowhere} does not respond)" in session.invoke("version", "--components", env=place)
    assert nowhere in session.invoke("db", "revision", code=3, env=place)


def test_the_database_of_a_shared_server_of_another_version_is_not_upgraded_from_here(session, institute, monkeypatch):
    place = {"JOBMON__HTTP__SERVICE_URL": institute, "JOBMON__HTTP__TOKEN": TOKEN}
    monkeypatch.setattr(migrations, "HEAD", "9999")  # a newer client
    assert session.json("db", "revision", code=1, env=place)["state"] == "older"
    refused = session.invoke("db", "upgrade", "-y", code=2, env=place)
    assert f"The server at {institute} upgrades its database" in refused
