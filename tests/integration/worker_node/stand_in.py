"""A stand-in for the server: it answers workers as the test requires, and records what they send."""

import contextlib
import json
import os
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading

from jobmon.worker_node import start

TASK = {
    "task_instance_id": 7,
    "task_id": 1,
    "task_name": "t",
    "workflow_id": 3,
    "workflow_run_id": 1,
    "attempt": 1,
    "command": "echo done",
    "requested_resources": {},
    "working_directory": "/tmp",
    "umask": 0o022,
    "heartbeat_interval": 30.0,
    "report_by_buffer": 3.0,
}
JOB = {
    "mode": "pack",
    "width": 1,
    "runtime_seconds": None,
    **{name: TASK[name] for name in ("workflow_id", "workflow_run_id", "requested_resources", "working_directory")},
    **{name: TASK[name] for name in ("umask", "heartbeat_interval", "report_by_buffer")},
}
NO_TASKS = {name: [] for name in ("task_instance_ids", "task_ids", "names", "commands", "attempts")}
ENDS_SECONDS_MAX = 30


def http(status, content=None, **headers):
    """Return the bytes of an answer; content that is not bytes becomes JSON."""
    body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
    given = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{given}content-length: {len(body)}\r\n\r\n".encode() + body


def problem(kind, **more):
    return {"kind": kind, "message": f"{kind}!", **more}


class Line(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            while line := self.rfile.readline():
                length = 0
                while header := self.rfile.readline().strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                self.server.take(self.wfile, line.split()[1].decode(), json.loads(self.rfile.read(length)))


class StandIn(socketserver.ThreadingTCPServer):
    """`answer(route, message)` returns the bytes to send; None: nothing, while it lives."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, answer, host="127.0.0.1"):
        self.answer, self.told, self.is_over = answer, [], threading.Event()
        super().__init__((host, 0), Line)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.port = self.server_address[1]

    def take(self, file, route, message):
        self.told.append((route, message))
        answer = self.answer(route, message)
        if answer is None:
            self.is_over.wait(ENDS_SECONDS_MAX)
        else:
            file.write(answer)

    def handle_error(self, request, client_address):
        """A worker hung up."""

    def secure(self, folder):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert", folder / "key")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def reports(self):
        """Return all reports of exits, in order."""
        return [one for _, m in self.told for one in m.get("reports", ()) if one["status"] in ("D", "E", "Z", "U")]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


def certificate(folder):
    """Make a certificate for localhost; return its path."""
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        folder / "key",
        "-out",
        folder / "cert",
    ]
    words += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "cert"


has_openssl = shutil.which("openssl") is not None


def run(folder, url, *words, **environment):
    """Run a worker to its end; return exit code and what it printed."""
    values = {
        "PATH": os.environ["PATH"],
        "JOBMON_DATA_DIR": str(folder / "data"),
        "JOBMON_SERVICE_URL": url,
        "JOB": "17",
        "JOBMON_WORKER_REPORT_SECONDS": "0.5",
        "JOBMON_PILOT_IDLE_SECONDS": "0.2",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", start.__file__, *words],
        env=values,
        capture_output=True,
        text=True,
        timeout=ENDS_SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stderr


def single(folder, url, **environment):
    """Run a worker of attempt 7."""
    return run(folder, url, "--task-instance-id", "7", **environment)


def packed(folder, url, **environment):
    """Run a packed job."""
    words = ["--cluster-name", "c", "--array-id", "1", "--packed", "yes", "--batch-number", "1"]
    return run(folder, url, *words, "--distributor-id-variable", "JOB", **environment)


def kept(folder):
    """Return the names of the files with undelivered reports."""
    return sorted(path.name for path in (folder / "data" / "reports").glob("*/*"))
