"""Requests of one user to another user's server, and impostors at its former address."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3

import pytest
from tests.security.users import free_port, wait_until

from jobmon.core.wire import API_ROOT
from jobmon.server.routes.table import ENDPOINTS

TOKEN = "the-token-of-the-victim"
#: More than the kernel's usual limit of open files.
CROWD = 1_300
FOREIGN = {"Origin": "http://evil.example", "Referer": "http://evil.example/x", "Sec-Fetch-Site": "cross-site"}
#: Run as the attacker: connections that begin a request and never end it. The port is the argument.
CROWDING = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
crowd = []
for number in range(int(sys.argv[2])):
    try:
        line = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
        line.sendall(b"GET /api/v1/workflows HTTP/1.1\\r\\nHost: x\\r\\n")
        crowd.append(line)
    except OSError:
        pass
open(sys.argv[3], "w").close()
time.sleep(60)
"""


@pytest.fixture
def port(serving):
    """Return the port of the victim's server, which every user can see."""
    return int(serving.victim.access()["address"].rpartition(":")[2])


def _send(port, method, route, body=None, **headers):
    """Send a request to a server; return the status of its answer."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        line.request(
            method, route, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        return line.getresponse().status
    finally:
        line.close()


# --- listening where a server was, or should be -----------------------------------------------------------------------


@pytest.mark.parametrize("program", ["command", "script", "worker"])
def test_listened_at_the_port_of_a_server_that_is_gone(world, program):
    """The holder of the token may run commands as the victim."""
    port = free_port()
    heard = world.attacker.listen(port)
    address = f"http://127.0.0.1:{port}"
    settings = {
        "JOBMON__HTTP__SERVICE_URL": address,
        "JOBMON__HTTP__TOKEN": TOKEN,
        "JOBMON__HTTP__RETRIES_TIMEOUT": "1",
    }
    if program == "command":
        world.victim.jobmon("workflow", "status", **settings)
    elif program == "script":
        world.victim.workflow(**settings)
    else:
        worker = {"JOBMON_SERVICE_URL": address, "JOBMON_TOKEN": TOKEN, "JOBMON_DATA_DIR": str(world.victim.home / "d")}
        world.victim.start(*world.victim.worker(), **worker)
        wait_until(heard.read_bytes)
    assert b"POST /api/v1/handshake" in heard.read_bytes(), "it was spoken to"
    assert TOKEN.encode() not in heard.read_bytes()


def test_listened_at_the_address_in_the_access_file_of_another_host(world, access_file):
    """A worker sees the data folder, and 127.0.0.1 is not the server's host."""
    port = free_port()
    heard = world.attacker.listen(port)
    changed = {"running": True, "boot_id": "another", "machine_id": "another", "socket": ""}
    changed["address"] = f"http://127.0.0.1:{port}"
    world.victim.folders(world.victim.data())
    world.victim.file(world.victim.data() / "server.json", json.dumps({**access_file, **changed}), 0o600)
    world.victim.run("timeout", "3", *world.victim.worker())
    assert heard.read_bytes() == b""


# --- asking without a right -------------------------------------------------------------------------------------------


def test_asked_for_everything_without_a_credential(port):
    open_routes = set()
    for endpoint in ENDPOINTS:
        route = endpoint.root + re.sub(r"\{[^}]*\}", "1", endpoint.path)
        for headers in ({}, {"Authorization": "Bearer guessed"}, {"Authorization": f"Basic {TOKEN}"}):
            if _send(port, endpoint.method, route, b"{}", content_type="application/json", **headers) not in (401, 405):
                open_routes.add(endpoint.path)
    assert open_routes == {"/health", "/ready"}


def test_asked_who_the_server_is(port):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    line.request("GET", f"{API_ROOT}/health")
    told = json.loads(line.getresponse().read())
    line.close()
    assert {name for name, value in told.items() if value} == {"message_version"}


@pytest.mark.parametrize(
    "route", ["/health/../workflows", "/%2e%2e/api/v1/workflows", "//workflows", "/workflows?token=x"]
)
def test_went_round_the_gate(port, route):
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        assert 400 <= _send(port, method, API_ROOT + route) < 500


def test_wrote_from_a_page_of_another_origin(serving, port):
    """The browser of the victim sends what any page tells it to."""
    token = serving.victim.access()["token"]
    tool = json.dumps({"name": "made-by-a-foreign-page"})
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/plain", **FOREIGN},
        {"Content-Type": "application/json", **FOREIGN},
        {"Content-Type": "application/json", "Origin": "null"},
        {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port + 1}"},
        {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Origin": "http://evil.example"},
    ):
        for credential in ({}, {"Authorization": f"Bearer {token}"}):
            assert 400 <= _send(port, "POST", f"{API_ROOT}/tools", tool, **headers, **credential) < 500
    assert 400 <= _send(port, "GET", f"{API_ROOT}/workflows", Host="evil.example") < 500
    good = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    assert _send(port, "POST", f"{API_ROOT}/tools", tool, **good) == 200


def test_opened_more_connections_than_a_server_may_have_files(serving, port):
    world = serving
    crowd = world.attacker.file(world.attacker.home / "crowd.py", CROWDING)
    ready = world.attacker.home / "ready"
    world.attacker.start(world.attacker.python, "-I", crowd, port, CROWD, ready)
    wait_until(ready.exists, 60)
    assert world.victim.jobmon("workflow", "status").returncode == 0
    pid = world.victim.access()["pid"]
    assert len(os.listdir(f"/proc/{pid}/fd")) < CROWD


def test_sent_a_head_without_an_end(serving, port):
    pid = serving.victim.access()["pid"]

    def mebibytes():
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) >> 10

    before = mebibytes()
    with socket.create_connection(("127.0.0.1", port)) as line, contextlib.suppress(OSError):
        line.settimeout(20)
        line.sendall(b"GET /api/v1/workflows HTTP/1.1\r\nHost: x\r\n")
        for _ in range(1_000):
            line.sendall(b"X: " + b"a" * 60_000 + b"\r\n")
    assert mebibytes() - before < 20
    assert _send(port, "GET", f"{API_ROOT}/health") == 200


# --- a server without a token -----------------------------------------------------------------------------------------

#: Sends a request, and perhaps closes its socket before the server can ask whose it is. Prints the status.
ASKING = """
import socket, sys
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
body = b'{"name": "made-by-a-stranger"}'
line.sendall(b"POST /api/v1/tools HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Type: application/json\\r\\n"
             b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
if sys.argv[2] == "half":
    line.shutdown(socket.SHUT_WR)
if sys.argv[2] != "closed":
    print(line.recv(65536).split()[1].decode())
line.close()
"""


@pytest.mark.parametrize("owner", ["victim", "administrator"])
def test_used_a_server_without_a_token(world, owner):
    """A socket that is closed counts as root's where the kernel lists it: the administrator here is root."""
    port, runner = free_port(), getattr(world, owner)
    folder = world.root / "institute"
    folder.mkdir()
    runner.give(folder, 0o700)
    words = ("-P", "-m", "jobmon.server", "--db", f"sqlite:///{folder}/i.sqlite", "--port", port)
    runner.start(world.victim.python, *words)
    wait_until(lambda: _answers(port), 60)
    asking = world.attacker.file(world.shared / "ask.py", ASKING)
    for manner in ("open", "half", "closed"):
        told = world.attacker.run(world.attacker.python, "-I", asking, port, manner).stdout.strip()
        assert told == ("" if manner == "closed" else "401")
    assert runner.run(world.victim.python, "-I", asking, port, "open").stdout.strip() == "200", "its own user's"
    with contextlib.closing(sqlite3.connect(folder / "i.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM tool").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM audit WHERE action = 'create tool'").fetchone() == (1,)


#: Listens and accepts nobody: who listens can be seen, and nobody owns the other end of a connection.
WAITING = "import socket, sys, time; door = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"


@pytest.mark.parametrize("manner", ["accepts", "waits"])
@pytest.mark.parametrize("program", ["command", "script", "worker"])
def test_listened_at_the_port_of_a_server_without_a_token(world, program, manner):
    """Its answers would decide what runs as the victim."""
    port = free_port()
    heard = world.attacker.home / "heard"
    if manner == "accepts":
        world.attacker.listen(port)
    else:
        world.attacker.start(world.attacker.python, "-I", "-c", WAITING, port)
        wait_until(lambda: _accepts(port))
    address = f"http://127.0.0.1:{port}"
    settings = {"JOBMON__HTTP__SERVICE_URL": address, "JOBMON__HTTP__RETRIES_TIMEOUT": "1"}
    if program == "worker":
        worker = {"JOBMON_SERVICE_URL": address, "JOBMON_DATA_DIR": str(world.victim.home / "d")}
        told = world.victim.run("timeout", "3", *world.victim.worker(), **worker).stdout
    elif program == "command":
        told = world.victim.jobmon("workflow", "status", **settings).stdout
    else:
        told = world.victim.workflow(**settings).stdout
    assert program == "worker" or f"another user (uid {world.attacker.uid})" in told
    assert manner == "waits" or set(heard.read_bytes().replace(b"(a connection)", b"")) == set()


def _accepts(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_control_a_user_runs_a_workflow_on_a_server_without_a_token(world, host):
    port = free_port()
    database = f"sqlite:///{world.victim.home}/i.sqlite"
    words = ("-P", "-m", "jobmon.server", "--db", database, "--host", host, "--port", port)
    world.victim.start(world.victim.python, *words)
    address = f"http://{host if ':' not in host else f'[{host}]'}:{port}"
    settings = {"JOBMON__HTTP__SERVICE_URL": address, "JOBMON__HTTP__RETRIES_TIMEOUT": "20"}
    assert "status D" in world.victim.workflow(**settings).stdout


def _answers(port):
    with contextlib.suppress(OSError):
        return _send(port, "GET", f"{API_ROOT}/health") == 200


# --- a server for several ---------------------------------------------------------------------------------------------


def test_steered_the_workflow_of_another_user_of_a_shared_server(world):
    folder = world.root / "institute"
    folder.mkdir(mode=0o700)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    administrator = {"JOBMON__HTTP__SERVICE_URL": address, "JOBMON__HTTP__TOKEN": "the-administrators-own-token"}
    server = world.administrator.start(
        *(world.victim.python, "-P", "-m", "jobmon.server", "--db", f"sqlite:///{folder}/i.sqlite", "--port", port),
        JOBMON__HTTP__TOKEN=administrator["JOBMON__HTTP__TOKEN"],
    )
    wait_until(lambda: _answers(port), 60)
    tokens = {}
    for user in (world.victim, world.attacker):
        created = world.administrator.jobmon("token", "create", "--user", user.name, "-o", "json", **administrator)
        tokens[user.name] = {**administrator, "JOBMON__HTTP__TOKEN": json.loads(created.stdout)["secret"]}
    mine, theirs = tokens[world.victim.name], tokens[world.attacker.name]
    assert "status D" in world.victim.workflow(**mine).stdout
    for words in (
        *(("workflow", "concurrency", "-w", "1", "-m", "5", "-y"), ("workflow", "reset", "-w", "1", "-y")),
        ("workflow", "reset", "-w", "1", "-y", "--any-owner"),
    ):
        refused = world.attacker.jobmon(*words, USER=world.victim.name, **theirs)
        assert refused.returncode != 0, (words, refused.stdout)
    created = world.attacker.jobmon("token", "create", "--user", world.victim.name, **theirs)
    assert created.returncode != 0
    assert f"cannot act for {world.victim.name}" in created.stdout
    history = world.victim.jobmon("workflow", "history", "-w", "1", "-o", "json", **mine)
    assert world.attacker.name not in history.stdout
    server.send_signal(signal.SIGTERM)
    server.wait(20)
