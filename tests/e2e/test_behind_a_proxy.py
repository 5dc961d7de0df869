"""A workflow, the command line and the page through real proxies, with TLS and below a path, as the examples say."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "shared-server"
TOKEN = "token-of-the-institute"
SECONDS_MAX = 30.0
WORKFLOW = """
from jobmon.client.api import Tool

tool = Tool("proxied")
template = tool.get_task_template("t", "echo {x}", node_args=["x"])
workflow = tool.create_workflow(name="proxied")
workflow.add_tasks(template.create_tasks(x=[1, 2, 3]))
print(workflow.run())
"""


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    files = folder / "fullchain.pem", folder / "privkey.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    return files


def nginx(folder: Path, backend: str, port: int) -> list[str]:
    """Write the example for this backend and port; return the command."""
    text = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("/etc/ssl/jobmon", str(folder))
    text = text.replace("http://127.0.0.1:8070/", f"{backend}/")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; {'user root;' if _is_root() else ''}\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{text}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(path)]


def caddy(folder: Path, backend: str, port: int) -> list[str]:
    text = (EXAMPLES / "Caddyfile").read_text(encoding="utf-8")
    tls = f"https://localhost:{port} {{\n\ttls {folder}/fullchain.pem {folder}/privkey.pem"
    text = text.replace("jobmon.example.org {", tls).replace("127.0.0.1:8070", backend.removeprefix("http://"))
    path = folder / "Caddyfile"
    path.write_text(
        f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}/caddy\n}}\n{text}"
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


def _is_root() -> bool:
    import os

    return os.getuid() == 0


@contextlib.contextmanager
def proxy(words: list[str], folder: Path, port: int) -> Any:
    with (
        (folder / "proxy.log").open("w") as log,
        subprocess.Popen(words, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            deadline = time.monotonic() + SECONDS_MAX
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, (folder / "proxy.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize(("program", "write", "prefix"), [("nginx", nginx, "/jobmon"), ("caddy", caddy, "")])
def test_everything_works_through_a_proxy(program, write, prefix, home, institute_server):
    if shutil.which(program) is None and not Path(f"/usr/sbin/{program}").exists():
        pytest.skip(f"needs {program}")
    folder = Path(home.folder) / program
    folder.mkdir()
    certificate(folder)
    port = free_port()
    address = f"https://localhost:{port}{prefix}"
    mine = {
        "JOBMON__HTTP__SERVICE_URL": address,
        "JOBMON__HTTP__TOKEN": TOKEN,
        "SSL_CERT_FILE": str(folder / "fullchain.pem"),
    }
    with (
        institute_server(folder, TOKEN, home.environment) as backend,
        proxy(write(folder, backend, port), folder, port),
    ):
        home.environment.update(mine)
        done = home.python(WORKFLOW)
        assert (done.stdout.split()[-1:], done.returncode) == (["D"], 0), done.stderr
        (shown,) = home.json("workflow", "status")
        assert (shown["name"], shown["status"], shown["counts"]) == ("proxied", "D", {"D": 3})
        link = home.jobmon("ui", "--no-browser").stdout.strip()
        assert link.startswith(f"{address}/#key=")
        trusting = ssl.create_default_context(cafile=mine["SSL_CERT_FILE"])
        with httpx.Client(verify=trusting) as http:
            page = http.get(f"{address}/")
            assert page.status_code == 200
            for file in re.findall(r'(?:src|href)="([^"]+)"', page.text):
                assert http.get(httpx.URL(f"{address}/").join(file)).status_code == 200, file
            key = re.search(r"#key=([^&]+)", link)[1]
            reader = {"Authorization": f"Bearer {key}"}
            origin = {"Origin": f"https://localhost:{port}", "Content-Type": "application/json"}
            session = http.post(f"{address}/api/v1/page/session", headers=reader | origin, content=b"{}")
            assert session.status_code == 200, session.text
            foreign = origin | {"Origin": "https://evil.example"}
            assert http.post(f"{address}/api/v1/page/session", headers=reader | foreign).status_code == 403
            assert "jobmon_requests_total" in http.get(f"{address}/metrics", headers=reader).text
