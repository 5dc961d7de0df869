"""A shared server: tested before it is saved, saved for its user only, forgotten, and described by commands."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from importlib import metadata
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml
from starlette.responses import HTMLResponse
from tests.databases import current
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider

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


# --- a login provider -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["device flow", "code"])
def provided(session, tmp_path_factory, institute_server, request):
    """Start a login provider and a shared server that uses it; yield the address of the server, and the provider."""
    folder = tmp_path_factory.mktemp("provided")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    with OidcProvider({"ada": ["biology"], "eve": []}).serving() as provider:
        provider.redirect_uri = "http://127.0.0.1:8070/"
        provider.has_device_flow = request.param == "device flow"
        environment |= {
            "HOME": str(folder),
            "JOBMON__AUTH__OIDC_ISSUER": provider.issuer,
            "JOBMON__AUTH__OIDC_CLIENT_ID": CLIENT_ID,
            "JOBMON__AUTH__OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "JOBMON__AUTH__USERS": "@biology",
            "JOBMON__SERVER__PUBLIC_URL": "http://127.0.0.1:8070",
        }
        with institute_server(folder, TOKEN, environment) as address:
            yield address, provider


class Login:
    """A `jobmon login` whose user reads what it prints, and types."""

    def __init__(self, address, home, *options):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
        self.file = home / ".jobmon.yaml"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from jobmon.cli.main import main; main()", "login", address, *options],
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
            env=environment | {"HOME": str(home), "NO_COLOR": "1"},
            text=True,
        )
        self.said = []
        self.type("")  # no token

    def type(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def address(self):
        """Return the address that it prints."""
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("  http"):
                return line.strip()
        raise AssertionError(self.said)

    def use_browser(self, provider, user):
        """Log in as the command says, and paste the code that the page would show, if it is not the device flow."""
        back = httpx.get(f"{self.address()}&user={user}").headers.get("location", "")
        if not provider.has_device_flow:
            self.type(parse_qs(urlsplit(back).query).get("code", ["declined"])[0])

    def ended(self):
        """Return exit code and output."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out + "".join(self.said) + errors

    def saved(self):
        return yaml.safe_load(self.file.read_text())["http"]


def test_a_login_in_a_browser_ends_in_a_saved_token(session, provided, home):
    address, provider = provided
    login = Login(address, home)
    login.use_browser(provider, "ada")
    code, said = login.ended()
    assert code == 0, said
    assert "Logged in as ada, until " in said
    saved = login.saved()
    assert (saved["service_url"], stat.S_IMODE(login.file.stat().st_mode)) == (address, 0o600)
    assert saved["token"] not in said
    from_file = {"HOME": str(home), "JOBMON__HTTP__SERVICE_URL": None, "JOBMON__HTTP__TOKEN": None}
    (token,) = session.json("token", "list", env=from_file)
    assert (token["user"], token["groups"], token["label"]) == ("ada", ["biology"], socket.gethostname())


def test_a_login_that_fails_saves_nothing(provided, home):
    address, provider = provided
    for user, sentence in (("", "rejects this login"), ("eve", "eve has no role on this server")):
        login = Login(address, home)
        login.use_browser(provider, user)
        code, said = login.ended()
        assert (code, sentence in said) == (2, True), said
    provider.faults = dict.fromkeys(("/device_authorization", "/token"), HTMLResponse("<h1>Maintenance"))
    login = Login(address, home)
    if not provider.has_device_flow:
        login.use_browser(provider, "ada")
    code, said = login.ended()
    provider.faults = {}
    assert (code, f"The login provider {provider.issuer} does not answer with a JSON object" in said) == (3, True), said
    assert not (home / ".jobmon.yaml").exists()


def test_a_token_is_still_accepted(session, provided, home):
    address, _ = provided
    place = {"HOME": str(home)}
    assert f"{address} (version " in session.invoke("login", address, input=f"{TOKEN}\n", env=place)
    assert "token" in session.invoke("login", address, "--with-token", code=2, input="\n", env=place)
