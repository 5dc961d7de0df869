"""Two servers on one PostgreSQL database: one is active, the other a standby that takes over."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from tests.chaos import ledger
from tests.chaos.rounds import PATIENT
from tests.chaos.world import World, free_ports, wait_for
from tests.databases import change, rows

from jobmon.agent.requests import PolledConnection
from jobmon.core import loops
from jobmon.core.clock import SystemClock
from jobmon.core.requester import Requester
from jobmon.core.wire.definition import ToolRequest, ToolResponse
from jobmon.core.wire.server import Health
from jobmon.server.app import open_database
from jobmon.server.settings import Settings
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Deposed, Surroundings
from jobmon.server.usecases import definitions

HOWTO = Path(__file__).resolve().parents[3] / "docs" / "howto" / "shared-server.md"
TOKEN = "administrator-token"
SECONDS_MAX = 30.0
RUN_SECONDS_MAX = 90.0
#: The promise of docs/explanation/reliability.md.
TAKEOVER_SECONDS_MAX = 3.0


@pytest.fixture(autouse=True)
def _needs_postgresql(databases):
    if databases.dialect != "postgresql":
        pytest.skip("needs --database postgresql")


class Running:
    """A server process."""

    def __init__(self, folder, uri, name):
        self.folder = folder / name
        self.folder.mkdir()
        settings = self.folder / "jobmon.yaml"
        content = {
            "db": {"sqlalchemy_database_uri": uri},
            "http": {"token": TOKEN},
            "server": {"log_format": "json", "standby": True},
        }
        settings.write_text(yaml.safe_dump(content))
        settings.chmod(0o600)
        self.log = self.folder / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jobmon", "server", "run", "--config", str(settings)],
                stderr=stream,
                cwd=self.folder,
                env=environment,
            )

    @property
    def messages(self):
        return [json.loads(line)["message"] for line in self.log.read_text().splitlines()]

    @property
    def address(self):
        """The newest one: it may have started anew."""
        found = [line[1] for one in self.messages if (line := re.fullmatch(r"listening on (http\S+)", one))]
        return found[-1] if found else None

    def get(self, route):
        return self.request("GET", route)

    def post(self, route, client=httpx, **message):
        return self.request("POST", route, client, json=message)

    def request(self, method, route, client=httpx, **more):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return client.request(method, f"{self.address}/api/v1{route}", headers=headers, timeout=SECONDS_MAX, **more)

    def status(self, route="/ready"):
        """Return the status of an answer, None if there is none."""
        if self.address is None:
            return None
        try:
            return self.get(route).status_code
        except httpx.TransportError:
            return None

    def wait_for(self, status):
        deadline = time.monotonic() + SECONDS_MAX
        while self.status() != status:
            assert time.monotonic() < deadline, (status, self.log.read_text())
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)


@pytest.fixture
def uri(tmp_path, databases):
    return databases.uri(tmp_path)


@pytest.fixture
def start(tmp_path, uri):
    """Return a function that starts a server and waits until it answers with a status."""
    started = []

    def start_one(name, status):
        one = Running(tmp_path, uri, name)
        started.append(one)
        one.wait_for(status)
        return one

    yield start_one
    for one in started:
        one.process.send_signal(signal.SIGCONT)
        one.process.terminate()
        assert one.process.wait(timeout=SECONDS_MAX) in (0, -signal.SIGKILL), one.log.read_text()


def tools(uri):
    return [name for (name,) in rows(uri, "SELECT name FROM tool ORDER BY name")]


def end_session_of(server, uri):
    """End the database sessions of a server, as a restart of the database or a broken connection would."""
    name = f"jobmon server % process {server.process.pid}"
    found = rows(
        uri, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE :name", name=name
    )
    assert found


def test_a_standby_says_so_and_takes_over_when_the_active_server_is_killed(start, uri):
    active = start("one", 200)
    standby = start("two", 503)
    assert standby.get("/health").status_code == 200
    refused = standby.post("/tools", name="refused")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "standby" in refused.json()["message"]
    assert active.post("/tools", name="first").status_code == 200
    began = time.monotonic()
    active.process.kill()
    standby.wait_for(200)
    assert time.monotonic() - began < TAKEOVER_SECONDS_MAX
    assert standby.post("/tools", name="second").status_code == 200
    assert tools(uri) == ["first", "second"]


def test_a_server_that_lost_its_session_while_suspended_writes_nothing_more(start, uri):
    former = start("one", 200)
    standby = start("two", 503)
    with httpx.Client(timeout=SECONDS_MAX) as client, ThreadPoolExecutor(1) as thread:
        assert former.post("/tools", client, name="first").status_code == 200
        former.process.send_signal(signal.SIGSTOP)
        late = thread.submit(former.post, "/tools", client, name="of the former one")
        end_session_of(former, uri)
        standby.wait_for(200)
        assert standby.post("/tools", name="of the new one").status_code == 200
        former.process.send_signal(signal.SIGCONT)
        assert late.result().status_code == 503
    former.wait_for(503)
    assert tools(uri) == ["first", "of the new one"]
    standby.process.kill()
    former.wait_for(200)
    assert former.post("/tools", name="of the former one").status_code == 200


def test_a_server_whose_session_was_ended_is_active_again_if_no_other_took_over(start, uri):
    only = start("one", 200)
    end_session_of(only, uri)
    only.wait_for(200)
    assert only.post("/tools", name="a").status_code == 200
    assert rows(uri, "SELECT epoch FROM logical_clock") == [(1,)]


def test_clients_and_workers_with_several_addresses_follow_the_active_server(start, uri):
    active, standby = start("one", 200), start("two", 503)
    both = f"{standby.address}, {active.address}/"
    requester = Requester(both, retries_timeout=SECONDS_MAX, retries_attempts=None, token=TOKEN)
    environment = {"JOBMON_SERVICE_URL": both, "JOBMON_TOKEN": TOKEN}
    polled = PolledConnection(environment)

    def ask_each():
        yield requester.call("/tools", ToolRequest(name="blocking"), ToolResponse).tool_id
        yield loops.run(ask_asynchronously())
        polled.send("/tools", {"name": "worker"}, SECONDS_MAX)
        yield answer_of(polled)[1]["tool_id"]

    async def ask_asynchronously():
        async with requester.open_session() as session:
            return (await requester.call_async(session, "/tools", ToolRequest(name="other"), ToolResponse)).tool_id

    before = list(ask_each())
    assert requester.addresses == f"{active.address} {standby.address}"
    active.process.kill()
    standby.wait_for(200)
    assert list(ask_each()) == before
    assert requester.call("/health", None, Health, "get", tenacious=False).pid == standby.process.pid
    assert len(tools(uri)) == 3
    requester.close()
    polled.close()


def answer_of(polled):
    deadline = time.monotonic() + SECONDS_MAX
    while (answer := polled.answer()) is None:
        assert time.monotonic() < deadline
        select.select([polled.watched()[0]], [], [], 0.1)
    return answer


def test_a_session_that_survived_its_lock_cannot_commit(uri):
    settings = Settings(database_uri=uri)
    database = open_database(settings)
    tx = database.open_transaction(Surroundings(settings, 0))
    try:
        tx.start(to_microseconds(SystemClock().now()))
        definitions.find_tool(tx, ToolRequest(name="kept"))
        tx.commit()
        tx.start(to_microseconds(SystemClock().now()))
        definitions.find_tool(tx, ToolRequest(name="lost"))
        change(uri, "UPDATE logical_clock SET epoch = epoch + 1")
        with pytest.raises(Deposed):
            tx.commit()
        tx.rollback()
        tx.start(to_microseconds(SystemClock().now()))
        assert tools(uri) == ["kept"]
        tx.commit()  # has written nothing
    finally:
        tx.close()
        database.close()


def test_a_run_loses_and_repeats_nothing_when_the_active_server_is_killed(databases):
    world = World(databases=databases, has_standby=True, **PATIENT)
    world.tend_servers()
    active = wait_for(world.active_server)
    client = world.client("takeover", "local", 60, 0.1)
    assert wait_for(lambda: ledger.done_count(world) >= 5, RUN_SECONDS_MAX)
    active.kill()
    assert client.wait(timeout=RUN_SECONDS_MAX) == 0
    assert wait_for(world.active_server).pid != active.pid
    assert world.orphans() == []
    found = ledger.count(world)
    assert (found.tasks, found.lost, found.repeated) == (60, [], [])
    world.remove()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_a_proxy_as_the_documentation_describes_it_follows_the_active_server(start, uri, tmp_path):
    active, standby = start("one", 200), start("two", 503)
    (port,) = free_ports(1)
    text = next(one for one in HOWTO.read_text(encoding="utf-8").split("```") if one.startswith("nginx\nupstream"))
    text = text.removeprefix("nginx\n").replace("server {", f"server {{ listen 127.0.0.1:{port};")
    for documented, server in (("one.internal:8070", active), ("two.internal:8070", standby)):
        text = text.replace(documented, server.address.removeprefix("http://"))
    temporary = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
    settings = tmp_path / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {tmp_path}/pid; {'user root;' if os.getuid() == 0 else ''} events {{}}\n"
        f"http {{ access_log off; {temporary} scgi_temp_path {tmp_path}/scgi;\n{text}}}\n"
    )
    proxy = subprocess.Popen(["nginx", "-p", tmp_path, "-e", tmp_path / "error.log", "-c", settings])

    def posted(name):
        with contextlib.suppress(httpx.TransportError):
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"http://127.0.0.1:{port}/api/v1/tools"
            return httpx.post(url, json={"name": name}, headers=headers, timeout=SECONDS_MAX).status_code == 200
        return False

    try:
        assert wait_for(lambda: posted("first"), SECONDS_MAX)
        assert all(posted(f"t{number}") for number in range(6))
        active.process.kill()
        assert wait_for(lambda: posted("last"), SECONDS_MAX)
    finally:
        proxy.terminate()
        proxy.wait(timeout=SECONDS_MAX)
    assert len(tools(uri)) == 8
