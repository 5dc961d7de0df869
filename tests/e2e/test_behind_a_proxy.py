"""A workflow, the command line and the page through real proxies, with TLS and below a path, as the examples say."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "shared-server"
TOKEN = "token-of-the-institute"
PROXY_SECRET = "secret-of-the-proxy"
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


def nginx_with_login(folder: Path, backend: str, port: int) -> list[str]:
    """Let nginx authenticate users, and pass them on as the documentation says; requests with a token pass."""
    words = nginx(folder, backend, port)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", "pw"], check=True, capture_output=True, text=True).stdout
    (folder / "users").write_text("".join(f"{user}:{hashed.strip()}\n" for user in ("ada", "root")))
    (folder / "users").chmod(0o644)
    named = f"""auth_basic $realm; auth_basic_user_file {folder}/users;
        proxy_set_header X-Remote-User $remote_user;
        proxy_set_header X-Jobmon-Proxy-Secret "{PROXY_SECRET}";
        proxy_set_header X-Request-ID"""
    realm = 'map $http_authorization $realm { default "Jobmon"; "~^Bearer " off; }\nserver {'
    path = folder / "nginx.conf"
    path.write_text(path.read_text().replace("proxy_set_header X-Request-ID", named).replace("server {", realm))
    return words


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


def require(program: str) -> None:
    if shutil.which(program) is None and not Path(f"/usr/sbin/{program}").exists():
        pytest.skip(f"needs {program}")


@pytest.mark.parametrize(("program", "write", "prefix"), [("nginx", nginx, "/jobmon"), ("caddy", caddy, "")])
def test_everything_works_through_a_proxy(program, write, prefix, home, institute_server):
    require(program)
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
            page_user = {"Authorization": f"Bearer {session.json()['key']}"}
            assert "jobmon_requests_total" in http.get(f"{address}/metrics", headers=page_user).text


INTERRUPTED = """
from jobmon.client.api import Tool

tool = Tool("proxied")
template = tool.get_task_template("t", "echo {x} >> FILE; while [ ! -e GO ]; do sleep 0.1; done", node_args=["x"])
workflow = tool.create_workflow(name="interrupted")
first = template.create_task(x=1)
workflow.add_tasks([first, template.create_task(x=2, upstream_tasks=[first])])
print(workflow.run())
"""


def test_a_run_survives_a_proxy_that_answers_in_html_that_it_reaches_nothing(home, institute_server):
    require("nginx")
    folder = Path(home.folder) / "broken"
    folder.mkdir()
    certificate(folder)
    port = free_port()
    ran, go, broken, requests = (folder / name for name in ("ran", "go", "broken", "requests.log"))
    mine = {
        "JOBMON__HTTP__SERVICE_URL": f"https://localhost:{port}/jobmon",
        "JOBMON__HTTP__TOKEN": TOKEN,
        "SSL_CERT_FILE": str(folder / "fullchain.pem"),
    }

    def wait_for(condition):
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with institute_server(folder, TOKEN, home.environment) as backend:
        command = nginx(folder, backend, port)
        path = folder / "nginx.conf"
        switch = f"server {{\naccess_log {requests};\nif (-f {broken}) {{ return 502; }}\n"
        path.write_text(path.read_text().replace("server {", switch, 1))
        with proxy(command, folder, port):
            home.environment.update(mine)
            script = INTERRUPTED.replace("FILE", str(ran)).replace("GO", str(go))
            with home.start(script) as client:
                wait_for(ran.exists)
                broken.touch()
                go.touch()  # the report of the first task finds only the proxy
                wait_for(lambda: requests.read_text().count(" 502 ") >= 5)
                home.environment["JOBMON__HTTP__RETRIES_ATTEMPTS"] = "1"
                refused = home.jobmon("workflow", "status")
                assert refused.returncode != 0
                assert "does not reach the server" in refused.stderr
                assert "<html" not in refused.stderr + refused.stdout
                broken.unlink()
                assert client.wait(timeout=2 * SECONDS_MAX) == 0
            (shown,) = home.json("workflow", "status")
            assert (shown["status"], shown["counts"]) == ("D", {"D": 2})
            assert ran.read_text().split() == ["1", "2"]


def test_a_proxy_that_authenticates_users_gives_them_their_roles(home, institute_server):
    require("nginx")
    folder = Path(home.folder) / "login"
    folder.mkdir()
    certificate(folder)
    port = free_port()
    roles = {
        "JOBMON__AUTH__ADMINISTRATORS": "root",
        "JOBMON__AUTH__PROXY_HEADER": "X-Remote-User",
        "JOBMON__AUTH__PROXY_SECRET": PROXY_SECRET,
    }
    json = {"Content-Type": "application/json"}
    with (
        institute_server(folder, TOKEN, home.environment | roles) as backend,
        proxy(nginx_with_login(folder, backend, port), folder, port),
        httpx.Client(
            verify=ssl.create_default_context(cafile=str(folder / "fullchain.pem")),
            base_url=f"https://localhost:{port}/jobmon/api/v1",
            headers=json,
        ) as http,
    ):
        assert http.get("/workflows").status_code == 401
        assert http.get("/workflows", auth=("ada", "wrong")).status_code == 401
        assert http.get("/workflows", auth=("ada", "pw")).status_code == 200
        chosen = {"X-Remote-User": "root", "X-Jobmon-Proxy-Secret": PROXY_SECRET}
        for headers in ({}, chosen):
            assert http.delete("/page/links", auth=("ada", "pw"), headers=headers).status_code == 403
        assert http.delete("/page/links", auth=("root", "pw")).status_code == 204
        made = http.post("/tokens", auth=("ada", "pw"), content=b'{"user": "", "label": "cli", "days": 1}')
        mine = {"Authorization": f"Bearer {made.json()['secret']}"}
        assert http.get("/tokens", headers=mine).json()["tokens"][0]["user"] == "ada"
        assert http.get("/workflows", headers={"Authorization": "Bearer wrong"}).status_code == 401
        beside = httpx.get(f"{backend}/api/v1/workflows", headers={"X-Remote-User": "root"})
        assert beside.status_code == 400, "whoever reaches the server without the proxy names nobody"


def test_people_log_in_through_a_proxy_below_a_path(home, institute_server):
    """With TLS by nginx, the server's own OpenID Connect, and nothing in nginx that knows of it."""
    require("nginx")
    folder = Path(home.folder) / "oidc"
    folder.mkdir()
    certificate(folder)
    port = free_port()
    address = f"https://localhost:{port}/jobmon"
    with OidcProvider({"ada": ["biology"], "bob": ["biology"], "eve": []}).serving() as provider:
        provider.redirect_uri = f"{address}/"
        settings = {
            "AUTH__OIDC_ISSUER": provider.issuer,
            "AUTH__OIDC_CLIENT_ID": CLIENT_ID,
            "AUTH__OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "AUTH__USERS": "@biology",
            "SERVER__PUBLIC_URL": address,
        }
        environment = home.environment | {f"JOBMON__{name}": value for name, value in settings.items()}
        with (
            institute_server(folder, TOKEN, environment) as backend,
            proxy(nginx(folder, backend, port), folder, port),
            httpx.Client(
                verify=ssl.create_default_context(cafile=str(folder / "fullchain.pem")), base_url=f"{address}/api/v1"
            ) as http,
        ):
            origin = {"Origin": f"https://localhost:{port}"}
            secret = "of this tab"
            challenge = hashlib.sha256(secret.encode()).hexdigest()
            for user, status in (("ada", 200), ("eve", 403)):
                message = {"purpose": "page", "challenge": challenge}
                started = http.post("/login/start", json=message, headers=origin).json()
                back = httpx.get(f"{started['url']}&user={user}").headers["location"]
                assert back.startswith(f"{address}/?")
                code = parse_qs(urlsplit(back).query)["code"][0]
                finish = {"state": started["state"], "code": code, "secret": secret}
                answer = http.post("/login/page", json=finish, headers=origin)
                assert answer.status_code == status, answer.text
                if status == 200:
                    session = {"Authorization": f"Bearer {answer.json()['key']}"}
                    assert http.get("/workflows", headers=session).status_code == 200
            home.environment["SSL_CERT_FILE"] = str(folder / "fullchain.pem")
            for name in ("JOBMON__HTTP__SERVICE_URL", "JOBMON__HTTP__TOKEN"):
                home.environment.pop(name, None)
            command = [str(Path(sys.executable).with_name("jobmon")), "login", address]
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            with subprocess.Popen(command, env=home.environment, cwd=home.folder, text=True, **streams) as login:
                shown = next(line for line in login.stderr if line.startswith("  http"))
                httpx.get(f"{shown.strip()}&user=bob")
                _, errors = login.communicate(timeout=SECONDS_MAX)
            assert (login.returncode, "Logged in as bob" in errors) == (0, True), errors
            home.environment["LOGNAME"] = "bob"
            done = home.python(WORKFLOW)
            assert (done.stdout.split()[-1:], done.returncode) == (["D"], 0), done.stderr
            (found,) = http.get("/workflows", headers=session).json()["workflows"]
            assert (found["user"], found["status"]) == ("bob", "D")
            hold = f"/workflows/{found['workflow_id']}/holds"
            assert http.post(hold, json={"template": "t", "held": True}, headers=session).status_code == 403
