"""A server whose data folder is on a network file system is started on another host.

Hosts are played: each has a folder for its local disk and ids of its own. The servers are real processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jobmon.core import access
from jobmon.core.requester import Requester
from jobmon.core.wire.definition import ToolRequest, ToolResponse

WAIT_SECONDS_MAX = 60
SERVER = """
import sys
from pathlib import Path

from jobmon.core import paths
from jobmon.server import database_copy, embedded, process

host, local, data, *options = sys.argv[1:]
paths.database_directory = lambda data, mounted=None: Path(local)
paths.boot_id = paths.machine_id = lambda: host
embedded.FILES_LOOK_SECONDS = database_copy.COPY_INTERVAL_SECONDS = 0.1
sys.exit(process.main(["--embedded", "--data-dir", data, *options]))
"""


@pytest.fixture
def hosts(tmp_path, monkeypatch, wait_until):
    """Return what starts the server on a host."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = tmp_path / "data"
    started = []

    def start(host, *options):
        words = [sys.executable, "-P", "-c", SERVER, host, str(tmp_path / host), str(data), *options]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        started.append(process)

        def is_settled():
            found = access.read_access_file(data)
            return process.poll() is not None or (found is not None and found.pid == process.pid and found.running)

        wait_until(is_settled)
        return process

    start.data = data
    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def wait_until():
    import time

    def wait(state):
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not state():
            assert time.monotonic() < deadline, "this state did not come"
            time.sleep(0.02)

    return wait


def _tool(data, name):
    found = access.read_access_file(data)
    requester = Requester(found.address, token=found.token)
    try:
        return requester.call("/tools", ToolRequest(name=name), ToolResponse).tool_id
    finally:
        requester.close()


def test_a_server_goes_on_elsewhere_with_the_copy_and_the_old_one_ends_when_it_comes_back(hosts, wait_until):
    data = hosts.data
    first = hosts("login1")
    before = access.read_access_file(data)
    tool = _tool(data, "t")
    copy = access.copy_path(data)
    wait_until(copy.exists)
    copied = copy.stat().st_mtime_ns
    _tool(data, "u")
    wait_until(lambda: copy.stat().st_mtime_ns > copied)
    first.send_signal(signal.SIGSTOP)

    refused = hosts("login2")
    text = refused.communicate(timeout=WAIT_SECONDS_MAX)[1]
    assert refused.returncode == 1
    assert f"The database is on host {os.uname().nodename} in {data.parent}/login1/jobmon.sqlite" in text
    assert "jobmon server start --take-over" in text
    assert access.read_access_file(data) == before

    second = hosts("login2", "--take-over")
    now = access.read_access_file(data)
    assert now.incarnation not in ("", before.incarnation)
    assert _tool(data, "t") == tool
    first.send_signal(signal.SIGCONT)
    text = first.communicate(timeout=WAIT_SECONDS_MAX)[1]
    assert "a server on another host has taken over; exiting" in text
    assert access.read_access_file(data) == now, "the old one does not write there"

    second.terminate()
    assert second.wait(WAIT_SECONDS_MAX) == 0
    ended = access.read_access_file(data)
    assert (ended.running, ended.is_copied) == (False, True)
