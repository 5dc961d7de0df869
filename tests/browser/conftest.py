"""Chromium, a server with workflows in many states, and artifacts of failed tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make ui")

from browser_world import World  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Chromium connects to no server but that of the page.
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS_MAX = 20


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.when == "call":
        item.stash[FAILED] = report.failed


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; on Debian and Ubuntu: apt-get install chromium")
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def world():
    with World() as opened:
        opened.record()
        yield opened


@pytest.fixture
def own_world():
    """Yield a separate server that the test may kill."""
    with World() as opened:
        yield opened


class Expected:
    """Console errors that a test expects."""

    def __init__(self):
        self.words = []

    def allow(self, *words):
        self.words += words


@pytest.fixture
def expected():
    return Expected()


@pytest.fixture
def context(chromium, request, tmp_path, expected):
    """Yield a separate browser context. Console errors fail the test; a failure leaves screenshots and console logs."""
    console = []
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(SECONDS_MAX * 1000)
    context.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
    context.on("weberror", lambda error: console.append(f"error: {error.error}"))
    yield context
    if request.node.stash.get(FAILED, False):
        for number, page in enumerate(context.pages):
            page.screenshot(path=tmp_path / f"page-{number}.png", full_page=True)
        (tmp_path / "console.txt").write_text("\n".join(console))
        sys.stderr.write(f"pictures and console: {tmp_path}\n")
    context.close()
    errors = [line for line in console if line.startswith("error") and not any(word in line for word in expected.words)]
    assert errors == []


@pytest.fixture
def page(context):
    return context.new_page()
