"""`jobmon server run` as a service runs it: its settings, what it tells systemd, TLS, and its Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "shared-server"
TOKEN = "administrator-token"
SECONDS_MAX = 30


def command(folder, **sections):
    """Write the settings; return command and environment of the server."""
    path = folder / "jobmon.yaml"
    path.write_text(yaml.safe_dump(sections))
    path.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    return [sys.executable, "-P", "-m", "jobmon", "server", "run", "--config", str(path)], environment


def settings(folder, databases, **server):
    return {
        "db": {"sqlalchemy_database_uri": databases.uri(folder)},
        "http": {"token": TOKEN},
        "server": {"log_format": "json"} | server,
    }


@contextlib.contextmanager
def service(folder, **sections):
    """Run the server; yield its process and its log once it says that it is ready, as systemd learns it."""
    words, environment = command(folder, **sections)
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(SECONDS_MAX)
        log = folder / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(words, env=environment | {"NOTIFY_SOCKET": address}, stderr=stream, cwd=folder)
        try:
            assert systemd.recv(100) == b"READY=1", log.read_text()
            yield process, log
        finally:
            process.terminate()
            code = process.wait(timeout=SECONDS_MAX)
    os.unlink(address)
    assert code == 0, log.read_text()


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def address_in(log):
    return next(found[1] for one in lines(log) if (found := re.fullmatch(r"listening on (http\S+)", one["message"])))


def certificate(folder, name):
    """Return files with a new certificate for 127.0.0.1 and its key."""
    files = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    return files


def test_a_service_is_ready_when_it_answers_and_ends_in_order(tmp_path, databases):
    with service(tmp_path, **settings(tmp_path, databases)) as (process, log):
        base = address_in(log)
        health = httpx.get(f"{base}/api/v1/health", headers={"Authorization": f"Bearer {TOKEN}"}).json()
        assert (health["pid"], health["database"]) == (process.pid, databases.dialect)
        words = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert TOKEN not in words
        assert databases.uri(tmp_path) not in words
    assert TOKEN not in log.read_text()
    assert {one["level"] for one in lines(log)} == {"INFO"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_a_service_listens_where_its_settings_say(tmp_path, databases, host, shown):
    with service(tmp_path, **settings(tmp_path, databases, host=host)) as (process, log):
        base = address_in(log)
        assert base.startswith(f"http://{shown}:")
        health = httpx.get(f"{base}/api/v1/health", headers={"Authorization": f"Bearer {TOKEN}"}).json()
        assert health["pid"] == process.pid


def test_the_certificate_is_renewed_without_a_restart(tmp_path, databases):
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    used = tmp_path / "used.pem", tmp_path / "used.key"

    def use(files):
        for source, target in zip(files, used, strict=True):
            shutil.copy(source, target)

    def names(trusted):
        context = ssl.create_default_context(cafile=str(trusted))
        with (
            socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=10) as line,
            context.wrap_socket(line, server_hostname="127.0.0.1") as secured,
        ):
            return dict(part[0] for part in secured.getpeercert()["subject"])["commonName"]

    use(first)
    tls = {"tls_certificate": str(used[0]), "tls_key": str(used[1])}
    with service(tmp_path, **settings(tmp_path, databases, **tls)) as (process, log):
        base = address_in(log)
        assert base.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(first[0]))
        answer = httpx.get(f"{base}/api/v1/workflows", headers={"Authorization": f"Bearer {TOKEN}"}, verify=trusting)
        assert answer.status_code == 200
        assert names(first[0]) == "first"
        used[0].write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        wait_for(log, "cannot be loaded, the old one stays in use")
        assert names(first[0]) == "first"
        use(second)
        process.send_signal(signal.SIGHUP)
        wait_for(log, "loaded the certificate")
        assert names(second[0]) == "second"


def wait_for(log, text):
    deadline = time.monotonic() + SECONDS_MAX
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_the_socket_for_a_proxy_is_open_to_its_group_only_and_trusts_no_user_id(tmp_path, databases):
    path = tmp_path / "proxy.sock"
    sections = settings(tmp_path, databases, socket=str(path)) | {"auth": {"proxy_header": "X-Remote-User"}}
    with service(tmp_path, **sections) as (_, log):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://server") as http:
            assert http.get("/api/v1/workflows").status_code == 401, "we run as the server's user"
            assert http.get("/api/v1/workflows", headers={"X-Remote-User": "ada"}).status_code == 200
        over_tcp = httpx.get(f"{address_in(log)}/api/v1/workflows", headers={"X-Remote-User": "ada"})
        assert over_tcp.status_code == 400
    assert not path.exists()


WRONG = {
    "no database": ({"db": {"sqlalchemy_database_uri": ""}}, "Specify the database"),
    "open to all without a token": ({"http": {"token": ""}, "server": {"host": "0.0.0.0"}}, "needs a token"),
    "socket without a token": ({"http": {"token": ""}, "server": {"socket": "/tmp/x/s"}}, "needs a token"),
    "certificate without a key": ({"server": {"tls_certificate": "/x"}}, "Set both server.tls_certificate"),
    "no certificate there": ({"server": {"tls_certificate": "/x", "tls_key": "/y"}}, "cannot be loaded"),
    "unknown group": ({"server": {"socket": "s", "socket_group": "no-such-group"}}, "there is no group"),
    "no folder for the socket": ({"server": {"socket": "/missing/s"}}, "/missing/s cannot be created"),
    "unknown format": ({"server": {"log_format": "xml"}}, "must be 'text' or 'json', not 'xml'"),
    "unproven proxy": ({"auth": {"proxy_header": "X-User"}}, "trusted only with auth.proxy_secret"),
    "unknown event": ({"notify": {"events": "finished"}}, "first-failure, stalled, not 'finished'"),
    "standby of a file": (
        {"db": {"sqlalchemy_database_uri": "sqlite:///jobmon.sqlite"}, "server": {"standby": True}},
        "only a PostgreSQL database can have a standby",
    ),
    "no such host": ({"server": {"host": "nohost.invalid"}}, "Cannot listen on nohost.invalid"),
    "bad age": ({"server": {"retention_days": "old"}}, "must be a number"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_ends_the_server_with_a_sentence(what, tmp_path, databases):
    changes, sentence = WRONG[what]
    sections = settings(tmp_path, databases)
    for section, values in changes.items():
        sections[section] = sections.get(section, {}) | values
    words, environment = command(tmp_path, **sections)
    done = subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 1, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["jobmon.service", "jobmon-backup.service", "jobmon-backup.timer"])
def test_systemd_accepts_the_units(unit, tmp_path):
    for path in EXAMPLES.glob("jobmon*.*er*"):
        text = path.read_text().replace("/opt/jobmon/bin/jobmon", "/bin/true").replace("/usr/bin/pg_dump", "/bin/true")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


def test_the_example_of_the_settings_is_complete(tmp_path):
    from jobmon.core.configuration import SETTINGS, JobmonConfig
    from jobmon.server.settings import Settings

    path = tmp_path / "jobmon.yaml"
    shutil.copy(EXAMPLES / "jobmon.yaml", path)
    path.chmod(0o600)
    for section, values in yaml.safe_load(path.read_text()).items():
        assert set(values) <= set(SETTINGS[section])
    found = Settings.from_config(JobmonConfig(path), database_uri="sqlite://")
    assert found.retention_days == 365
    assert found.notifying.urls[0].startswith("mailto://")


def test_the_status_is_that_of_the_server_in_use(tmp_path, databases):
    with service(tmp_path, **settings(tmp_path, databases)) as (_, log):
        _, environment = command(tmp_path, **settings(tmp_path, databases))
        environment |= {"JOBMON__HTTP__SERVICE_URL": address_in(log), "JOBMON__HTTP__TOKEN": TOKEN}
        words = [sys.executable, "-P", "-m", "jobmon", "server", "status", "-o", "json"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
        shown = json.loads(done.stdout)
        assert (shown["address"], shown["database"]) == (address_in(log), databases.dialect)
        assert shown["database_bytes"] > 10_000
        assert TOKEN not in done.stdout
