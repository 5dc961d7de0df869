"""The embedded server as a real process: one per data folder, started on demand, restarted in place."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
from benchmarks.runs import OpenRun
from click.testing import CliRunner
from tests.databases import change

from jobmon.agent import processes
from jobmon.cli.main import main
from jobmon.core import access, paths
from jobmon.core.exceptions import ConfigError, InvalidRequest, ServerUnavailable
from jobmon.core.requester import FINDER_NAME, Requester
from jobmon.core.wire import replace
from jobmon.core.wire.definition import ToolRequest, ToolResponse
from jobmon.core.wire.server import Health, OpenRequest, ServerAddress
from jobmon.core.wire.swarm import ChangesResponse

WAIT_SECONDS_MAX = 20


@pytest.fixture
def data(tmp_path, monkeypatch):
    # a folder of pytest's may be too deep for the path of a Unix socket
    with tempfile.TemporaryDirectory(prefix="jm-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
        yield tmp_path / "data"
        wait_until(lambda: not any(thread.name == FINDER_NAME for thread in threading.enumerate()))
        access.stop_server()


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_started_on_demand_and_private(data):
    requester = Requester.from_defaults()
    health = requester.call("/health", None, Health, "get")
    found = access.find_server()
    assert health.pid == found.pid
    assert health.database == "sqlite"
    assert data.stat().st_mode & 0o777 == 0o700
    assert access.access_file_path().stat().st_mode & 0o777 == 0o600
    assert Path(found.socket).stat().st_mode & 0o777 == 0o600
    assert found.address.startswith("http://127.0.0.1:")
    requester.close()


def test_inside_an_attempt_the_server_that_it_runs_for_is_waited_for_and_not_started(data, monkeypatch):
    monkeypatch.setenv("JOBMON__SERVER__START_TIMEOUT", "0.2")
    monkeypatch.setenv(processes.MARK_VARIABLE, "cafe-1")
    monkeypatch.setenv(processes.DATA_VARIABLE, f"{data}/../{data.name}")
    with pytest.raises(ServerUnavailable, match="An attempt does not start it"):
        access.ensure_server()
    assert not data.exists()
    monkeypatch.setattr(access, "_started", lambda data, *_: data)  # that it would be started is enough
    monkeypatch.setenv(processes.DATA_VARIABLE, f"{data}-of-another")
    assert access.ensure_server() == data


def test_over_tcp_it_wants_the_token(data):
    found = access.ensure_server()
    with_token = Requester(found.address, token=found.token)
    assert with_token.call("/tools", ToolRequest(name="t"), ToolResponse).name == "t"
    for requester in (Requester(found.address), Requester(found.address, token="wrong")):
        status, content = requester.send_request("/tools", ToolRequest(name="t"), "post")
        assert (status, content["kind"]) == (401, "Unauthorized")
        with pytest.raises(InvalidRequest):
            requester.call("/tools", ToolRequest(name="t"), ToolResponse)
        requester.close()
    with_token.close()


@pytest.mark.parametrize("host", ["::1", "::", "localhost"])
def test_it_listens_where_the_settings_say(data, monkeypatch, host):
    """Over IPv6, too; "::" is all addresses of both kinds."""
    monkeypatch.setenv("JOBMON__SERVER__HOST", host)
    assert access.ensure_server().running
    found = access.read_access_file(data)
    port = int(found.address.rpartition(":")[2])
    assert found.address.startswith({"::1": "http://[::1]:", "::": f"http://{paths.host_address()}:"}.get(host, "http"))
    for address in {"::1": ["[::1]"], "::": ["[::1]", "127.0.0.1", paths.host_address()]}.get(host, ["127.0.0.1"]):
        requester = Requester(f"http://{address}:{port}", token=found.token)
        assert requester.call("/health", None, Health, "get").pid == found.pid


def test_scripts_that_start_at_the_same_moment_share_one_server(data):
    script = "from jobmon.core import access; print(access.ensure_server().pid)"
    starters = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    pids = {starter.communicate(timeout=WAIT_SECONDS_MAX)[0].strip() for starter in starters}
    assert len(pids) == 1


def test_a_killed_server_is_replaced_at_the_same_socket_and_port(data):
    requester = Requester.from_defaults()
    before = requester.call("/tools", ToolRequest(name="kept"), ToolResponse)
    old = access.find_server()
    os.kill(old.pid, signal.SIGKILL)
    wait_until(lambda: not paths.is_process_alive(old.pid, old.pid_start_time))
    assert Path(old.socket).exists()  # the stale socket is cleared by the next one
    assert requester.call("/tools", ToolRequest(name="kept"), ToolResponse) == before
    new = access.find_server()
    assert new.pid != old.pid
    assert (new.socket, new.address) == (old.socket, old.address)
    assert new.token != old.token, "the old one is worthless"
    requester.close()


def test_an_access_file_whose_pid_belongs_to_somebody_else_is_stale(data):
    found = access.ensure_server()
    access.stop_server()
    start = paths.process_start_time(os.getpid())
    forged = {**{name: getattr(found, name) for name in found.__struct_fields__}, "running": True}
    access.write_access_file(type(found)(**{**forged, "pid": os.getpid(), "pid_start_time": start - 1000}), data)
    assert access.find_server() is None
    assert access.ensure_server().pid != os.getpid()


def test_sigterm_answers_an_open_poll_and_ends(data):
    requester = Requester.from_defaults()
    found = access.find_server()
    run = OpenRun(requester, "polled", 1)
    changes = f"/workflows/{run.workflow_id}/changes"
    now = requester.call(changes, {"workflow_run_id": run.run_id}, ChangesResponse, "get").time
    query = urlencode({"since": now.isoformat(), "wait_seconds": 30, "workflow_run_id": run.run_id})
    with closing(http.client.HTTPConnection("localhost")) as line:
        line.sock = socket.socket(socket.AF_UNIX)
        line.sock.connect(found.socket)
        line.request("GET", f"/api/v1{changes}?{query}")
        assert requester.call("/health", None, Health, "get").pid == found.pid  # so it has the poll, which came earlier
        start = time.monotonic()
        assert access.stop_server(timeout=WAIT_SECONDS_MAX)
        assert line.getresponse().status == 200
    assert time.monotonic() - start < WAIT_SECONDS_MAX
    assert not Path(found.socket).exists()
    assert access.stop_server() is False
    requester.close()


def test_unused_it_ends_by_itself(data, monkeypatch):
    monkeypatch.setenv("JOBMON__SERVER__IDLE_TIMEOUT", "0.2")
    found = access.ensure_server()
    wait_until(lambda: not paths.is_process_alive(found.pid, found.pid_start_time))
    assert access.read_access_file().running is False


def test_a_server_that_cannot_start_says_why(data, monkeypatch):
    monkeypatch.setenv("JOBMON__DB__SQLALCHEMY_DATABASE_URI", f"sqlite:///{data}/no/such/folder/db.sqlite")
    with pytest.raises(ServerUnavailable, match="exited with code"):
        access.ensure_server()


def test_a_data_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(ConfigError, match="JOBMON_DATA_DIR"):
        access.ensure_server()


def test_a_server_of_another_host_is_not_started_twice(data):
    found = access.ensure_server()
    access.stop_server()
    fields = {name: getattr(found, name) for name in found.__struct_fields__}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        other = {"host": "login2", "boot_id": "b2", "machine_id": "m2", "address": f"http://127.0.0.1:{port}"}
        forged = {**fields, **other, "running": True}
        access.write_access_file(type(found)(**forged), data)
        with pytest.raises(ServerUnavailable, match="Work on login2"):
            access.ensure_server()
    access.write_access_file(type(found)(**{**fields, "running": False}), data)


def test_no_answer_names_address_and_remedy():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        requester = Requester(f"http://127.0.0.1:{unused.getsockname()[1]}", retries_attempts=2)
        with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1.*/tools.*Check http\.service_url"):
            requester.call("/tools", ToolRequest(name="t"), ToolResponse)


def test_neither_a_request_with_little_time_nor_a_loop_that_ends_waits_for_the_start_of_a_server(data):
    requester = Requester.from_defaults()
    access.stop_server()

    async def ask():
        async with requester.open_session() as session:
            await asyncio.wait_for(requester.call_async(session, "/health", None, Health, "get"), 0.2)

    with access._locked(paths.database_directory(data) / access.START_LOCK_NAME, 1):
        began = time.monotonic()
        with pytest.raises(ServerUnavailable, match="does not respond to /health"):
            requester.within(0.4).call("/health", None, Health, "get")
        with pytest.raises(TimeoutError) as raised:
            asyncio.run(ask())
        assert time.monotonic() - began < WAIT_SECONDS_MAX  # a start is waited for three times as long
    assert isinstance(raised.value.__cause__.__cause__, OSError)


def test_a_service_url_without_scheme_is_refused():
    with pytest.raises(ConfigError, match="http://"):
        Requester("jobmon.example:8000")


def _pretend_to_be_older(found, **changes):
    access.write_access_file(replace(found, version="0.0.1", **changes), access.access_file_path().parent)


def test_an_idle_server_of_an_older_version_is_replaced(data):
    old = access.ensure_server()
    _pretend_to_be_older(old)
    new = access.ensure_server()
    assert new.pid != old.pid
    assert (new.address, new.version) == (old.address, old.version)
    assert access.ensure_server() == new


def test_a_busy_server_of_an_older_version_is_used_until_it_is_idle(data, monkeypatch, caplog):
    monkeypatch.setattr(access, "RETIRE_SECONDS_MAX", 0.3)
    requester = Requester.from_defaults()
    run = OpenRun(requester, "busy", 1)
    old = access.find_server()
    _pretend_to_be_older(old)
    assert access.ensure_server().pid == old.pid
    assert "it stays in use" in caplog.text
    assert access.read_access_file().retiring
    _pretend_to_be_older(old, message_version=0, retiring=True)
    with pytest.raises(ServerUnavailable, match="is busy, and cannot communicate with"):
        access.ensure_server()
    run.post(f"{run.route}/status", {"status": "E"})
    wait_until(lambda: not paths.is_process_alive(old.pid, old.pid_start_time))
    requester.close()


def test_a_newer_server_that_speaks_otherwise_is_refused(data):
    found = access.ensure_server()
    access.write_access_file(replace(found, message_version=99), access.access_file_path().parent)
    with pytest.raises(ServerUnavailable, match="Upgrade this program"):
        access.ensure_server()


def test_a_database_of_a_newer_version_is_refused_with_a_remedy(data):
    access.ensure_server()
    access.stop_server()
    change(f"sqlite:///{data}/jobmon.sqlite", "UPDATE migration SET version_num = '9999'")
    with pytest.raises(ServerUnavailable, match="a newer one wrote it"):
        access.ensure_server()


def test_a_large_log_is_begun_anew(data, monkeypatch):
    monkeypatch.setattr(access, "LOG_BYTES_MAX", 100)
    log = access.server_log_path()
    log.parent.mkdir(parents=True)
    log.write_text("old\n" * 100)
    access.ensure_server()
    assert log.with_name("server.log.1").read_text().startswith("old")
    assert "old" not in log.read_text()


def test_the_status_says_what_the_server_is_busy_with(data):
    found = access.ensure_server()
    result = CliRunner().invoke(main, ["server", "status", "-o", "json"])
    shown = json.loads(result.output)
    assert (result.exit_code, shown["pid"], shown["version"]) == (0, found.pid, found.version)
    assert (shown["active_runs"], shown["active_attempts"]) == (0, 0)
    assert shown["database_bytes"] > 10_000


def test_it_is_opened_to_other_hosts_on_demand_and_stays_so(data):
    requester = Requester.from_defaults()
    here = access.find_server().address
    opened = requester.call("/server/open_to_other_hosts", None, ServerAddress).address
    assert opened == f"http://{paths.host_address()}:{here.rpartition(':')[2]}"
    assert requester.call("/server/open_to_other_hosts", None, ServerAddress).address == opened
    found = access.find_server()
    assert found.address == opened
    assert access.access_file_path().stat().st_mode & 0o777 == 0o600
    for address in (opened, here):
        with pytest.raises(InvalidRequest, match="wants a token"):
            Requester(address).call("/tools", ToolRequest(name="t"), ToolResponse)
        assert Requester(address, token=found.token).call("/tools", ToolRequest(name="t"), ToolResponse).name == "t"
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not paths.is_process_alive(found.pid, found.pid_start_time))
    again = Requester.from_defaults()
    assert access.find_server().address == opened, "jobs that run elsewhere find the next one at the same address"
    again.close()
    requester.close()


def test_it_is_closed_to_other_hosts_when_nothing_there_needs_it(data, monkeypatch):
    """The run that asked is over; another one, of commands on this machine only, is not."""
    monkeypatch.setenv("JOBMON__SERVER__IDLE_TIMEOUT", "3")
    requester = Requester.from_defaults()
    asking, other = (OpenRun(requester, name, 1) for name in ("asking", "other"))
    here = access.find_server().address
    ask = OpenRequest(workflow_run_id=asking.run_id)
    opened = requester.call("/server/open_to_other_hosts", ask, ServerAddress).address
    host, _, port = opened.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        asking.post(f"{asking.route}/status", {"status": "E"})
        wait_until(lambda: access.find_server().address == here)
        line.settimeout(20)
        assert line.recv(1) == b"", "who is connected there is sent away, too"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=20)
    assert Requester(here, token=access.find_server().token).call("/health", None, Health, "get").pid
    ask = OpenRequest(workflow_run_id=other.run_id)
    assert requester.call("/server/open_to_other_hosts", ask, ServerAddress).address == opened
    requester.close()


def _renamed(data):
    """Have the access file say that its server was started when this machine had another name."""
    found = access.read_access_file(data)
    access.write_access_file(replace(found, host=f"formerly-{found.host}"), data)
    return found


def test_a_living_server_is_used_and_stopped_after_the_machine_was_renamed(data):
    found = access.ensure_server()
    _renamed(data)
    assert access.ensure_server().pid == found.pid
    assert access.stop_server()
    assert not paths.is_process_alive(found.pid, found.pid_start_time)


def test_a_dead_server_is_replaced_after_the_machine_was_renamed(data):
    found = access.ensure_server()
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not paths.is_process_alive(found.pid, found.pid_start_time))
    _renamed(data)
    wait_until(lambda: access.find_server() is None)  # its threads may hold the lock a moment longer
    assert access.ensure_server().pid != found.pid


def test_a_server_in_another_container_of_this_machine_is_not_replaced_while_it_holds_the_lock(data):
    """It has our boot ID, but its process is not visible here."""
    found = access.ensure_server()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        unseen = replace(
            found, host="container2", pid_start_time=1.0, address=f"http://127.0.0.1:{unused.getsockname()[1]}"
        )
        access.write_access_file(unseen, data)
        with pytest.raises(ServerUnavailable, match="container2"):
            access.ensure_server()
        with pytest.raises(ServerUnavailable, match="container2"):
            access.stop_server()
    access.write_access_file(replace(unseen, address=found.address), data)
    assert access.ensure_server().address == found.address
    access.write_access_file(found, data)


def _is_asked(requester):
    return requester.call("/health", None, Health, "get").pid


def test_a_server_whose_socket_was_removed_is_reached_over_tcp_until_it_has_made_it_again(data):
    known = Requester.from_defaults()
    found = access.find_server()
    assert _is_asked(known) == found.pid
    os.kill(found.pid, signal.SIGSTOP)  # so that it makes nothing again yet
    shutil.rmtree(Path(found.socket).parent)
    os.kill(found.pid, signal.SIGCONT)
    assert access.usable_socket(found) == ""
    new = Requester.from_defaults()
    assert _is_asked(new) == found.pid
    known.close()
    assert _is_asked(known) == found.pid
    wait_until(lambda: access.usable_socket(access.find_server()) != "")
    again = Requester.from_defaults()
    assert again.target.socket == found.socket
    assert _is_asked(again) == found.pid
    assert Path(found.socket).stat().st_mode & 0o777 == 0o600
    for requester in (known, new, again):
        requester.close()
    access.stop_server()
    assert not Path(found.socket).exists()


async def test_a_session_that_was_opened_before_the_socket_was_removed_goes_on_over_tcp(data):
    requester = Requester.from_defaults()
    found = access.find_server()
    async with requester.open_session() as session:
        os.unlink(found.socket)
        answer = await requester.call_async(session, "/health", None, Health, "get")
    assert answer.pid == found.pid


def test_a_server_whose_runtime_folder_went_with_the_login_moves_to_the_temporary_folder(data, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="jl-") as login, tempfile.TemporaryDirectory(prefix="jt-") as temporary:
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{login}/1000")
        monkeypatch.setenv("TMPDIR", temporary)
        monkeypatch.setattr(tempfile, "tempdir", None)
        Path(login, "1000").mkdir()
        found = access.ensure_server()
        assert found.socket.startswith(login)
        shutil.rmtree(Path(login, "1000"))
        wait_until(lambda: access.find_server().socket.startswith(temporary))
        assert access.usable_socket(access.find_server()) != ""
        access.stop_server()
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_server_whose_access_file_was_removed_is_found_again(data):
    found = access.ensure_server()
    access.access_file_path().unlink()
    assert access.ensure_server().pid == found.pid


def test_a_server_whose_data_folder_was_removed_exits_and_leaves_the_new_one_alone(data):
    first = access.ensure_server()
    shutil.rmtree(data)
    wait_until(lambda: not paths.is_process_alive(first.pid, first.pid_start_time))
    assert not access.access_file_path().exists()
    requester = Requester.from_defaults()
    health = requester.call("/health", None, Health, "get")
    assert health.pid != first.pid
    assert requester.call("/tools", ToolRequest(name="anew"), ToolResponse).tool_id == 1
    requester.close()


def test_a_database_in_memory_is_refused(data, monkeypatch):
    for uri in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"):
        monkeypatch.setenv("JOBMON__DB__SQLALCHEMY_DATABASE_URI", uri)
        with pytest.raises(ServerUnavailable, match="SQLite needs a file"):
            access.ensure_server()
