"""Addresses of receivers are secret on the command line, too, and can be tested from there."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from click.testing import CliRunner

from jobmon.cli.doctor import notifications
from jobmon.cli.main import main
from jobmon.core.configuration import JobmonConfig
from jobmon.core.exceptions import UntrustedFile

SECRET = "pa55phrase"
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def receiver():
    """Yield the address of a receiver, and what it received."""
    received = []

    class Post(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *ignored):
            """Be silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"json://{SECRET}:{SECRET}@127.0.0.1:{server.server_port}/{SECRET}", received
        server.shutdown()
        thread.join()


def invoke(*words, urls, code):
    done = CliRunner(env={"JOBMON__NOTIFY__URLS": urls}).invoke(main, list(words))
    assert done.exit_code == code, done.output
    assert SECRET not in done.output
    return done.output


def test_a_test_message_is_sent_and_failures_are_told(receiver):
    address, received = receiver
    assert invoke("server", "test-notifications", urls=address, code=0) == "ok   notify.urls 1 (json://***)\n"
    assert [one["title"] for one in received] == ["Jobmon: test"]
    urls = f"{address} json://{SECRET}:{SECRET}@127.0.0.1:9/{SECRET} nonsense://{SECRET}"
    ok, refused, unknown = invoke("server", "test-notifications", urls=urls, code=1).splitlines()
    assert ok.startswith("ok ")
    assert refused.startswith("FAIL notify.urls 2 (json://***): ")
    assert unknown.startswith("FAIL notify.urls 3 (nonsense://***): ")


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_settings_are_shown_without_addresses(output):
    shown = invoke("config", "show", "-o", output, urls=f"json://{SECRET} slack://{SECRET}/x", code=0)
    assert "json://***" in shown
    assert "slack://***" in shown


def test_the_doctor_names_addresses_that_nothing_knows():
    config = JobmonConfig(dict_config={"notify": {"urls": [f"json://{SECRET}", f"nonsense://{SECRET}"]}})
    (found,) = notifications(config)
    assert (found.is_fine, "notify.urls 2 (nonsense://***)" in found.found) == (False, True)
    config.set("notify", "urls", [f"json://{SECRET}"])
    (found,) = notifications(config)
    assert (found.is_fine, found.found) == (True, "1 receiver configured")
    assert list(notifications(JobmonConfig(dict_config={"notify": {"urls": ""}}))) == []


@pytest.mark.parametrize("text", ["notify: {urls: ['json://x']}", "auth: {proxy_secret: x}", "http: {token: x}"])
def test_a_file_with_secrets_must_be_private(text, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(UntrustedFile):
        JobmonConfig(path)
    path.chmod(0o600)
    JobmonConfig(path)
