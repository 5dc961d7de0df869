"""Follow a workflow by its stream: while the server is there, gone, restarted or behind a proxy."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import socket
import subprocess
import threading
import urllib.request

import pytest
from browser_world import JOBMON, RESTING, wait_until
from playwright.sync_api import expect

expect.set_options(timeout=30_000)
DONE = re.compile(r"\d DONE")
GONE, UNAVAILABLE = "net::ERR_", "503"
BYTES = 65_536
#: As the server promises: a comment at least this often, generously.
SILENT_SECONDS_MAX = 6.0


def done(page):
    return page.get_by_role("region", name="Progress").get_by_role("listitem").filter(has_text=DONE)


def paths_of(page):
    """Collect what a page requests."""
    found = []
    page.on("request", lambda request: found.append(request.url.partition("/api/v1")[2]))
    return found


def finish(world, number):
    (world.folder / f"go-{number}").touch()


def streams_of(paths):
    return [path for path in paths if path.endswith("/stream")]


def is_view(path):
    return path.endswith("/view")


class Proxy:
    """Passes on connections, but does with a stream what proxies do: `hold` it back, or `cut` it when it begins."""

    def __init__(self, target, mode):
        self.target, self.mode = target, mode
        self.streams = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        for line in [self._listening, *self._open]:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self.target)
                self._open += [client, server]
                is_stream = threading.Event()
                threading.Thread(target=self._requests, args=(client, server, is_stream), daemon=True).start()
                threading.Thread(target=self._responses, args=(server, client, is_stream), daemon=True).start()

    def _requests(self, client, server, is_stream):
        with contextlib.suppress(OSError):
            while data := client.recv(BYTES):
                if b"/stream HTTP" in data:
                    self.streams += 1
                    is_stream.set()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _responses(self, server, client, is_stream):
        with contextlib.suppress(OSError):
            while data := server.recv(BYTES):
                if is_stream.is_set():
                    if self.mode == "cut":
                        break
                    continue
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def test_a_followed_workflow_is_not_asked_for_again_and_again(own_world, page):
    own_world.start()
    page.goto(own_world.address())
    page.get_by_role("link", name="busy").click()
    expect(done(page)).to_have_text("0 DONE")
    asked = paths_of(page)
    for number in range(4):
        finish(own_world, number)
        expect(done(page)).to_have_text(f"{number + 1} DONE")
    expect(page.get_by_role("heading", level=1)).to_contain_text("DONE")
    assert sum(map(is_view, asked)) <= 1  # what was under way when the stream opened
    for route in ("/failures", "/task_summaries"):  # as the parts of the stream are asked in `routes.table`
        assert sum(route in path for path in asked) <= 1
    assert not [path for path in asked if path.startswith("/workflows?workflow_id")][1:]


@pytest.mark.parametrize("mode", ["hold", "cut"])
def test_the_page_asks_where_a_proxy_does_not_pass_on_its_stream(own_world, page, expected, mode):
    expected.allow(GONE)
    own_world.start()
    address = own_world.address()
    host, port = re.search(r"//([^:/]+):(\d+)/", address).groups()
    with Proxy((host, int(port)), mode) as proxy:
        page.goto(address.replace(f":{port}/", f":{proxy.port}/"))
        page.get_by_role("link", name="busy").click()
        expect(done(page)).to_have_text("0 DONE")
        wait_until(lambda: page.evaluate("1") and proxy.streams)
        for number in range(4):
            finish(own_world, number)
            expect(done(page)).to_have_text(f"{number + 1} DONE")
        expect(page.get_by_role("heading", level=1)).to_contain_text("DONE")
        expect(page.get_by_role("status")).to_be_empty()  # the server is there
        page.close()


def mark_done(port, task_id):
    """Change a task by a request; our own user needs no token."""
    message = {"task_ids": [task_id], "status": "D", "user": getpass.getuser(), "force": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/workflows/1/task_updates",
        json.dumps(message).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response)["changed"] == 1


@contextlib.contextmanager
def shared_server(world, port):
    """Run a server without a token, whose pages need no session."""
    database = f"sqlite:///{world.folder / 'shared.sqlite'}"
    environment = {
        **world.environment,
        "JOBMON__DB__SQLALCHEMY_DATABASE_URI": database,
        "JOBMON__SERVER__PORTS": str(port),
    }
    environment.pop("JOBMON__HTTP__SERVICE_URL", None)
    process = subprocess.Popen([str(JOBMON), "server", "run"], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_listening(port))
        yield process
    finally:
        process.kill()
        process.wait()


def is_listening(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_a_page_that_outlives_its_server_follows_the_next_one(own_world, page, expected):
    expected.allow(GONE, UNAVAILABLE, "403")  # without a token there is no session to open
    port = free_port()
    with shared_server(own_world, port):
        own_world.environment["JOBMON__HTTP__SERVICE_URL"] = f"http://127.0.0.1:{port}"
        script = own_world.start(RESTING)
        assert script.wait(60) == 0
        page.goto(f"http://127.0.0.1:{port}/#/workflows/1")
        expect(done(page)).to_have_text("0 DONE")
        mark_done(port, 1)
        expect(done(page)).to_have_text("1 DONE")
    expect(page.get_by_role("status")).to_contain_text("Server away since")
    expect(done(page)).to_have_text("1 DONE")
    asked = paths_of(page)
    with shared_server(own_world, port):
        expect(page.get_by_role("status")).to_be_empty()
        mark_done(port, 2)
        expect(done(page)).to_have_text("2 DONE")
        wait_until(lambda: page.evaluate("1") and streams_of(asked))
        mark_done(port, 3)
        expect(done(page)).to_have_text("3 DONE")
        page.close()


def test_a_hidden_page_has_no_stream_and_catches_up_when_it_is_shown(own_world, page):
    own_world.start()
    page.goto(own_world.address())
    page.get_by_role("link", name="busy").click()
    expect(done(page)).to_have_text("0 DONE")
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: true, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked = paths_of(page)
    finish(own_world, 0)
    wait_until(lambda: "busy_0" in own_world.jobmon("workflow", "tasks", "-w", 1, "-s", "DONE", "-o", "json"))
    assert not streams_of(asked)
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: false, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    expect(done(page)).to_have_text("1 DONE")
    wait_until(lambda: page.evaluate("1") and streams_of(asked))


def test_a_closed_session_ends_the_stream_and_is_not_asked_for_again(own_world, page, expected):
    expected.allow("401")
    own_world.start()
    page.goto(own_world.address())
    page.get_by_role("link", name="busy").click()
    expect(done(page)).to_have_text("0 DONE")
    own_world.jobmon("ui", "--revoke")
    expect(page.get_by_role("status")).to_contain_text("Open the page again with jobmon ui")
    finish(own_world, 0)
    asked = paths_of(page)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: page.evaluate("1") and len(streams_of(asked)) > 1, SILENT_SECONDS_MAX)
    assert len(streams_of(asked)) <= 1
    expect(done(page)).to_have_text("0 DONE")
