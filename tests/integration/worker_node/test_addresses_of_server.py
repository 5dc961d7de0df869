"""A server's host has several addresses: workers use the first one at which the server proves itself."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time

import pytest

from jobmon.agent import servers
from jobmon.agent.requests import PolledConnection
from jobmon.agent.servers import ServerAway
from jobmon.core import access, paths
from jobmon.core.configuration import JobmonConfig
from jobmon.core.exceptions import ConfigError
from jobmon.core.requester import Requester
from jobmon.core.wire.server import ServerAddress

ROUTE = "/tools"
TIMEOUT = 20.0


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """An embedded server that is open to other hosts, and its address."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    requester = Requester.from_defaults()
    yield requester.call("/server/open_to_other_hosts", None, ServerAddress)
    requester.close()
    access.stop_server()


@pytest.fixture
def other(tmp_path, monkeypatch, opened):
    """The address of another user's server, whose token is not ours."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "other"))
    yield access.ensure_server().address
    access.stop_server()
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def silent():
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def stranger():
    """An address where something else answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve():
            while not over.is_set():
                if select.select([server], [], [], 0.05)[0]:
                    line, _ = server.accept()
                    with line, contextlib.suppress(OSError):
                        line.recv(65536)
                        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join()


def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def far(tmp_path, *addresses, token):
    """The environment of a job on a host that cannot read the data folder."""
    variables = {"JOBMON_DATA_DIR": str(tmp_path / "nothing"), "JOBMON_SERVER_ADDRESS": " ".join(addresses)}
    return {**os.environ, **variables, "JOBMON_TOKEN": token}


def ask(environment):
    connection = PolledConnection(environment)
    try:
        return [_asked(connection) for _ in range(2)]
    finally:
        connection.close()


def _asked(connection):
    connection.send(ROUTE, {"name": "t"}, TIMEOUT)
    while (found := connection.answer()) is None:
        poll = select.poll()
        if (watched := connection.watched()) is not None:
            poll.register(*watched)
        poll.poll(max(0.0, connection.deadline - time.monotonic()) * 1000)
    return found[0]


def test_the_first_address_at_which_the_server_proves_itself_is_used(
    opened, other, silent, stranger, tmp_path, monkeypatch
):
    monkeypatch.setattr(servers, "PATIENCE_SECONDS_FIRST", 0.3)
    token = access.read_access_file(tmp_path / "data").token
    environment = far(tmp_path, closed(), silent, stranger, other, opened.addresses[0], token=token)
    assert ask(environment) == [200, 200]


def test_where_no_address_is_the_servers_it_is_away(opened, silent, stranger, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "PATIENCE_SECONDS_FIRST", 0.2)
    with pytest.raises(ServerAway):
        ask(far(tmp_path, silent, stranger, closed(), token="secret"))


def test_a_refusal_at_one_address_is_no_last_word_while_another_is_not_reached(opened, tmp_path):
    with pytest.raises(ServerAway):
        ask(far(tmp_path, opened.address, closed(), token="wrong"))
    assert ask(far(tmp_path, opened.address, token="wrong")) == [401, 401]


@pytest.mark.parametrize("words", ["x", "40100-40000", "80", "40000-70000", "-40000"])
def test_a_range_of_ports_that_is_none_is_named(words):
    with pytest.raises(ConfigError, match=r"server\.ports"):
        JobmonConfig(dict_config={"server": {"ports": words}}).parsed("server", "ports")


def test_a_server_takes_the_ports_that_it_may_for_all_its_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first = port if port < 65_500 else port - 30
        monkeypatch.setenv("JOBMON__SERVER__PORTS", f"{first}-{first + 30}")
        found = access.ensure_server().address
        try:
            requester = Requester.from_defaults()
            opened = requester.call("/server/open_to_other_hosts", None, ServerAddress)
            requester.close()
        finally:
            access.stop_server()
    ports = {int(one.rpartition(":")[2]) for one in (found, *opened.addresses)}
    assert ports <= set(range(first, first + 31)) - {port}


def test_a_server_listens_on_all_addresses_of_its_host_and_its_successor_too(opened, tmp_path):
    hosts = [one.removeprefix("http://").rpartition(":")[0] for one in opened.addresses]
    assert hosts == paths.host_addresses()
    assert access.read_access_file(tmp_path / "data").addresses == opened.addresses
    access.stop_server()
    assert access.ensure_server().addresses == opened.addresses
