"""User errors, broken terminals and unreachable servers give a clear message and the right exit code."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

JOBMON = str(Path(sys.executable).with_name("jobmon"))
NAMES = ["عربي", "日本語のタスク", "e\u0301✗🧬", "[red]bold[red]", "-w", "%s{x}"]
NAMED = f"""
names = recorded("назва [bold]x[/bold] \\x1b[31m", description="d")
names.add_tasks([step.create_task(name=name, command="echo " + str(i)) for i, name in enumerate({NAMES!r})])
names.bind()
print(names.workflow_id, *(task.task_id for task in names.tasks.values()))
"""
#: Commands that read, with W and T for the ids.
READING = (
    "workflow status -w W",
    "workflow tasks -w W",
    "workflow logs -w W",
    "workflow errors -w W",
    "workflow errors -w W --list",
    "workflow explain W",
    "workflow history -w W",
    "workflow efficiency -w W",
    "workflow resources yaml -w W",
    "db export -w W",
    "workflow report -w W --format csv",
    "task status -t T",
    "task dependencies -t T",
    "task explain T",
    "task logs T",
)
STEERING = (
    "workflow stop -w W -y",
    "workflow resume -w W -c multiprocess",
    "workflow reset -w W -y",
    "workflow concurrency -w W -m 3 -y",
    "task update -w W -t T -s D -y",
    "db purge -w W -y",
)


@pytest.mark.parametrize("line", [*READING, *STEERING])
@pytest.mark.parametrize("number", ["987654", "-1", "99999999999999999999"])
def test_unknown_ids_are_wrong_use(session, line, number):
    words = line.replace("W", number).replace("T", number).split()
    text = session.invoke(*words, code=2)
    assert len(text) < 600
    assert number in text


@pytest.mark.parametrize("line", ["workflow explain five", "task logs 0", "workflow explain", "task status"])
def test_what_is_no_id_is_wrong_use(session, line):
    assert "Usage: " in session.invoke(*line.split(), code=2)


@pytest.mark.parametrize("line", [line for line in STEERING if "concurrency" not in line])
def test_what_belongs_to_others_is_left_alone(session, line):
    """User names are trusted. Any user may set the concurrency; the history shows who did."""
    number, task = session.workflows["resting"], session.tasks["first"]
    words = line.replace("W", str(number)).replace("T", str(task)).split()
    before = session.json("workflow", "status", "-w", number)
    text = session.invoke(*words, code=None, env={"LOGNAME": "somebody", "USER": "somebody"})
    assert "belongs to" in text
    assert "somebody" in text
    assert session.json("workflow", "status", "-w", number) == before


@pytest.mark.parametrize(
    "line", [*READING, *STEERING, "workflow status", "cluster list", "cluster add x --plugin dummy"]
)
def test_without_a_server_it_is_said_where_it_was_looked_for(session, line):
    away = {"JOBMON__HTTP__SERVICE_URL": "http://127.0.0.1:9", "JOBMON__HTTP__RETRIES_ATTEMPTS": "1"}
    text = session.invoke(*line.replace("W", "1").replace("T", "1").split(), code=3, env=away)
    assert "http://127.0.0.1:9 does not respond to" in text
    assert text.count("\n") <= 2


class _OtherVersion(http.server.BaseHTTPRequestHandler):
    """A server that knows no route of ours, and whose answers have other fields."""

    def do_GET(self) -> None:
        if "workflows?" in self.path:
            status, answer = 200, {"flows": 3}
        else:
            status, answer = 404, {"kind": "NotFound", "message": f"GET {self.path}: Not Found."}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def test_a_server_of_another_version_is_named_as_the_cause(session):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _OtherVersion) as server:
        threading.Thread(target=server.serve_forever).start()
        # Without a token: with one, nothing is sent to a server that cannot prove that it knows it.
        there = {"JOBMON__HTTP__SERVICE_URL": f"http://127.0.0.1:{server.server_port}", "JOBMON__HTTP__TOKEN": ""}
        for line, code in (("workflow status", 1), ("workflow explain 5", 2), ("task explain 5", 2)):
            assert "have a different version" in session.invoke(*line.split(), code=code, env=there)
        server.shutdown()


def test_a_file_that_cannot_be_written_is_named(session, tmp_path):
    nowhere = tmp_path / "no" / "requests.yaml"
    text = session.invoke("workflow", "resources", "yaml", "-w", session.workflows["fine"], "-f", nowhere, code=2)
    assert "requests.yaml cannot be written: No such file or directory." in text


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"a": }', "'x'"])
def test_bad_json_is_named(session, text):
    assert "--node-args" in session.invoke("workflow", "resources", "usage", "-t", 1, "-a", text, code=2)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("workflow", "tasks", "-w", 1, "-s", "fatl"), "FATAL"),
        (("workflow", "tasks", "-w", 1, "-s", "DONNE"), "DONE"),
        (("task", "status", "-t", 1, "-s", "runnning"), "RUNNING"),
        (("task", "update", "-t", 1, "-w", 1, "-s", "doen"), "DONE"),
        (("db", "purge", "-s", "fialed"), "FAILED"),
    ],
)
def test_the_nearest_status_is_named(session, words, near):
    assert f"did you mean {near}?" in session.invoke(*words, code=2)


@pytest.fixture(scope="module")
def named(session):
    """A workflow and its tasks with names in any script."""
    with session.python(session.define + NAMED) as client:
        numbers = client.communicate(timeout=60)[0].split()
    return [int(number) for number in numbers[-1 - len(NAMES) :]]


@pytest.mark.parametrize("columns", ["40", "80"])
def test_names_in_any_script_are_shown_and_not_obeyed(session, named, columns):
    number, *tasks = named
    narrow = {"COLUMNS": columns}
    table = session.invoke("workflow", "tasks", "-w", number, env=narrow)
    assert "\x1b" not in table
    squeezed = "".join(table.split())
    for name in ("عربي", "日本語", "[red]bold[red]", "🧬"):
        assert name in squeezed or columns == "40"
    assert "назва[bold]x[/bold]␛[31m" in "".join(session.invoke("workflow", "explain", number).split())
    for words in (("workflow", "status"), ("workflow", "explain", number), ("workflow", "errors", "-w", number)):
        assert "\x1b" not in session.invoke(*words, env=narrow)
    for task in tasks:
        for words in (("task", "status", "-t", task), ("task", "explain", task), ("task", "dependencies", "-t", task)):
            assert "\x1b" not in session.invoke(*words, env=narrow)
    found = session.json("workflow", "tasks", "-w", number)
    assert [one["name"] for one in found] == NAMES


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_them_is_no_reason_to_fail(session, named, encoding):
    given = {name: value for name, value in session.environment.items() if value is not None}
    environment = {**os.environ, **given, "PYTHONIOENCODING": encoding, "COLUMNS": "40"}
    for words in (["workflow", "tasks", "-w", str(named[0])], ["workflow", "status", "-w", str(named[0])]):
        finished = subprocess.run([JOBMON, *words], env=environment, capture_output=True, check=False)
        assert (finished.returncode, finished.stderr) == (0, b"")
        assert finished.stdout.decode(encoding)
