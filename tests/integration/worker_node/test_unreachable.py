"""A worker that cannot reach its server reports the addresses that it tried, limits its retries, and exits."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from jobmon.core import access
from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.requester import Requester
from jobmon.distributor.undelivered import START_ERRORS_FOLDER, StartErrors
from jobmon.worker_node import process

ENDS_SECONDS_MAX = 20


def work(tmp_path, **environment):
    """Run a worker; return exit code, what it printed, and what the distributor will say."""
    command = [sys.executable, "-I", "-S", process.__file__, "--cluster-name", "far", "--task-instance-id", "1"]
    variables = {"JOBMON_DATA_DIR": str(tmp_path / "data"), "JOB": "77_3", **environment}
    done = subprocess.run(
        [*command, "--distributor-id-variable", "JOB"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=ENDS_SECONDS_MAX,
        check=False,
    )
    ending = RemoteExit(status=TaskInstanceStatus.ERROR, exit_code=1, message="exit code 1")
    said = StartErrors(str(tmp_path / "data"), "far").added("77_3", ending).message
    return done.returncode, done.stderr, said


@pytest.fixture
def deaf():
    """An address where connections are counted and closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        connections, is_over = [], threading.Event()

        def serve():
            while not is_over.is_set():
                try:
                    line, _ = server.accept()
                except TimeoutError:
                    continue
                connections.append(time.monotonic())
                line.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        is_over.set()
        thread.join()


def test_a_server_that_does_not_answer_is_named_and_not_hammered(tmp_path, deaf):
    address, connections = deaf
    code, printed, said = work(tmp_path, JOBMON_SERVICE_URL=address, JOBMON_WORKER_START_SECONDS="1")
    assert code == 1
    for text in (printed, said):
        assert f"the server cannot be reached from {socket.gethostname()} (tried for 1 s at {address}: " in text
    assert said.startswith("exit code 1; its worker said: ")
    assert 3 <= len(connections) <= 10


def test_an_address_where_nobody_listens_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    _, printed, _ = work(tmp_path, JOBMON_SERVER_ADDRESS=address, JOBMON_WORKER_START_SECONDS="0.2")
    assert f"at {address}: " in printed
    assert "Connection refused" in printed


def test_a_wrong_token_is_said_at_once_and_waited_for(tmp_path, monkeypatch):
    """The server may have been restarted: nothing ends because of a 401 before the time for starting is over."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    requester = Requester.from_defaults()
    try:
        address = access.find_server().address
        began = time.monotonic()
        code, printed, said = work(
            tmp_path, JOBMON_SERVICE_URL=address, JOBMON_TOKEN="old", JOBMON_WORKER_START_SECONDS="1"
        )
        assert time.monotonic() - began >= 1  # it gives up no earlier than it says
        assert code == 1
        refusal = "it does not admit this host: the token is wrong"
        assert printed.count("; waiting") == 1
        assert f"(tried for 1 s at {address}: {refusal}" in said
        assert f"the server at {address}: {refusal}" in printed
        assert (tmp_path / "data").exists()
    finally:
        requester.close()
        access.stop_server()


def test_both_sides_mean_the_same_folder():
    assert process.START_ERRORS_FOLDER == START_ERRORS_FOLDER
