"""Two people log in at a shared server through a provider that is not ours, and see what they may."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec

import httpx
import pytest
from browser_world import DEFINE, wait_until
from playwright.sync_api import expect

TOKEN = "token-of-the-institute"
#: Groups by user.
PEOPLE = {"ada": ["biology"], "bob": ["physics"], "kim": ["auditors"]}
BIND = """
own = recorded("of " + sys.argv[1])
own.add_task(step.create_task(name="only", command="true"))
own.bind()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as line:
        return line.getsockname()[1]


pytestmark = pytest.mark.skipif(find_spec("oidc_provider_mock") is None, reason="needs oidc-provider-mock: make ui")


def is_listening(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def provider():
    port = free_port()
    users = [{"sub": name, "preferred_username": name, "groups": groups} for name, groups in PEOPLE.items()]
    words = [word for user in users for word in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: is_listening(port))
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def shared(provider, tmp_path_factory, institute_server):
    """Start a shared server on which ada and bob have a workflow each; yield its address."""
    folder, port = tmp_path_factory.mktemp("shared"), free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    settings = {
        "AUTH__OIDC_ISSUER": provider,
        "AUTH__OIDC_CLIENT_ID": "jobmon",
        "AUTH__OIDC_CLIENT_SECRET": "any",
        "AUTH__READERS": "@auditors",
        "AUTH__VISIBILITY": "group",
        "SERVER__PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SERVER__PORTS": str(port),
    }
    environment = clean | {"HOME": str(folder)} | {f"JOBMON__{name}": value for name, value in settings.items()}
    with institute_server(folder, TOKEN, environment) as address:
        for user in ("ada", "bob"):
            mine = {"JOBMON__HTTP__SERVICE_URL": address, "JOBMON__HTTP__TOKEN": TOKEN, "LOGNAME": user}
            script = [sys.executable, "-c", DEFINE + BIND, user]
            subprocess.run(script, check=True, env=clean | {"HOME": str(folder)} | mine, cwd=folder)
        yield address


@pytest.fixture
def person(chromium):
    """Return a function that opens the browser of another person."""
    with contextlib.ExitStack() as stack:

        def opened():
            context = stack.enter_context(contextlib.closing(chromium.new_context()))
            return context.new_page()

        yield opened


def log_in(page, address, user):
    page.goto(address)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name=user, exact=True).click()


def test_two_people_log_in_and_see_only_what_they_may(shared, person):
    ada, bob = person(), person()
    for page, user, other in ((ada, "ada", "bob"), (bob, "bob", "ada")):
        log_in(page, shared, user)
        expect(page).to_have_url(re.compile(rf"^{re.escape(shared)}/#/"))
        expect(page.get_by_text(f"of {user}", exact=True)).to_be_visible()
        expect(page.get_by_text(f"of {other}", exact=True)).to_have_count(0)
        page.goto(f"{shared}/#/workflows/{1 if other == 'ada' else 2}")
        expect(page.get_by_text("whose workflows you may not read").first).to_be_visible()
    ada.goto(f"{shared}/#/workflows/1")
    expect(ada.get_by_role("heading", name="of ada")).to_be_visible()
    expect(ada.get_by_text("read-only")).to_have_count(0)
    ada.reload()
    expect(ada.get_by_role("heading", name="of ada")).to_be_visible()


def test_a_reader_sees_everything_and_changes_nothing(shared, person):
    page = person()
    log_in(page, f"{shared}/#/workflows/2", "kim")
    expect(page.get_by_role("heading", name="of bob")).to_be_visible()
    expect(page.get_by_text("read-only")).to_be_visible()


def test_a_login_that_is_declined_or_was_started_elsewhere_says_so(shared, person):
    page = person()
    page.goto(shared)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("alert")).to_contain_text(re.compile("denied", re.IGNORECASE))
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
    elsewhere = person()
    elsewhere.goto(page.url)
    elsewhere.get_by_role("button", name="ada", exact=True).click()
    expect(elsewhere.get_by_role("alert")).to_contain_text("started in another tab")
    assert elsewhere.evaluate("sessionStorage.getItem('jobmon.key')") in (None, "")


def test_the_page_shows_the_code_of_a_login_of_the_command_line(shared, person):
    page = person()
    message = {"purpose": "token", "challenge": "0" * 64}
    page.goto(httpx.post(f"{shared}/api/v1/login/start", json=message).json()["url"])
    page.get_by_role("button", name="ada", exact=True).click()
    expect(page.get_by_role("heading", name="Logged in")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_be_visible()
    assert "code=" not in page.url
    page.goto(f"{shared}/?state=token.1&code=reboot%20%26")
    expect(page.get_by_role("alert")).to_contain_text("not a code")
