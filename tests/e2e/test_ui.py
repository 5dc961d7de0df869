"""`jobmon ui`: the address that the browser gets, and what the key in it permits."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

BROWSER = """#!/bin/sh
printf '%s\\n' "$@" >> "$HOME/shown"
"""


def ask(address: str, key: str, method: str = "GET") -> int:
    """Send one request and return the status of the answer."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, data=None if method == "GET" else b"{}") as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def browser(home):
    """Make a program that notes what it is to show the browser of this home."""
    path = Path(home.environment["HOME"], "browser")
    path.write_text(BROWSER)
    path.chmod(0o700)
    home.environment["BROWSER"] = str(path)
    return path.with_name("shown")


def test_a_browser_is_shown_a_private_file_that_leads_to_the_page(home, browser):
    shown = home.json("ui", "--share")
    assert shown["opened"]
    (argument,) = browser.read_text().splitlines()
    assert argument.startswith("file://")
    file = Path(urllib.parse.urlsplit(argument).path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    base, _, fragment = shown["address"].partition("#")
    words = dict(urllib.parse.parse_qsl(fragment))
    assert words["go"] == "/"
    assert words["key"] in file.read_text()
    assert (ask(f"{base}api/v1/workflows", words["key"]), ask(f"{base}api/v1/workflows", "other")) == (200, 401)
    assert ask(f"{base}api/v1/clusters", words["key"], "POST") == 403
    with urllib.request.urlopen(base) as answer:
        assert b"<title>Jobmon</title>" in answer.read()
    assert home.jobmon("ui", "-w", "17").returncode == 2
    assert len(browser.read_text().splitlines()) == 1


@pytest.mark.sqlite_only(reason="restarts the embedded server")
def test_the_address_outlives_the_server_and_that_other_hosts_are_let_in(home):
    first = home.json("ui", "--no-browser", "--days", "1")
    token = json.loads(Path(home.environment["JOBMON_DATA_DIR"], "server.json").read_text())["token"]
    assert ask(f"{first['address'].partition('#')[0]}api/v1/server/open_to_other_hosts", token, "POST") == 200
    assert not home.json("server", "status")["address"].startswith("http://127.")
    base, _, fragment = first["address"].partition("#")
    assert home.jobmon("server", "stop").returncode == 0
    assert home.json("ui", "--no-browser")["address"].startswith(base)
    key = dict(urllib.parse.parse_qsl(fragment))["key"]
    assert ask(f"{base}api/v1/workflows", key) == 200
    assert home.jobmon("ui", "--revoke").returncode == 0
    assert ask(f"{base}api/v1/workflows", key) == 401


def test_the_address_without_share_is_exchanged_once_for_a_session_that_steers(home):
    base, _, fragment = home.json("ui", "--no-browser")["address"].partition("#")
    code = dict(urllib.parse.parse_qsl(fragment))["key"]
    assert (ask(f"{base}api/v1/workflows", code), ask(f"{base}api/v1/tools", code, "POST")) == (200, 403)
    assert [ask(f"{base}api/v1/page/session", code, "POST") for _ in range(2)] == [200, 401]


def test_without_a_server_there_is_no_page(home):
    home.environment |= {"JOBMON__HTTP__SERVICE_URL": "http://127.0.0.1:9", "JOBMON__HTTP__RETRIES_ATTEMPTS": "1"}
    finished = home.jobmon("ui")
    assert (finished.returncode, finished.stdout, "Traceback" in finished.stderr) == (3, "", False)
