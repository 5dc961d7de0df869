"""Commands and names cannot control the terminal on which they are displayed."""

from __future__ import annotations

import os
import pty

import pytest

SEQUENCES = {
    **{"clipboard": "\x1b]52;c;ZXZpbA==\x07", "title": "\x1b]0;PWNED\x07", "screen": "\x1b[2J", "colour": "\x1b[31m"},
    **{"upper half": "\x9b2J", "direction": "\u202e", "isolate": "\u2066", "bell": "\x07", "back": "\b"},
}
HOSTILE = "".join(SEQUENCES.values())
SCRIPT = """
import sys
from jobmon.client.api import Tool
evil = @EVIL@
tool = Tool("t")
template = tool.get_task_template(template_name="t", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow(name="wf" + evil, workflow_args="e", default_cluster_name="multiprocess")
command = "printf 'err%b last line' '" + "".join(f"\\\\0{byte:03o}" for byte in evil.encode()) + "' >&2; exit 3"
workflow.add_task(template.create_task(command=command, name="plain", max_attempts=1))
print(workflow.run())
"""


@pytest.fixture
def terminal(world):
    """Return what runs a program of the victim's on a terminal and returns what reached it."""

    def run(*words):
        pid, line = pty.fork()
        if not pid:
            os.setgroups([])
            os.setgid(world.victim.gid)
            os.setuid(world.victim.uid)
            os.chdir(world.victim.home)
            environment = {key: value for key, value in world.victim.environment.items() if key != "NO_COLOR"}
            os.execve(words[0], list(map(str, words)), {**environment, "TERM": "xterm-256color"})
        out = b""
        try:
            while data := os.read(line, 65536):
                out += data
        except OSError:
            pass
        os.close(line)
        os.waitpid(pid, 0)
        return out.decode(errors="surrogateescape")

    return run


def _raw(text):
    """Return which sequences came through; the colours that Jobmon itself uses are not of the attacker's making."""
    return [name for name, sequence in SEQUENCES.items() if sequence in text and name != "colour"]


def test_wrote_to_every_terminal_that_shows_the_workflow(world, terminal):
    python = str(world.victim.python)
    script = world.victim.file(world.victim.home / "wf.py", SCRIPT.replace("@EVIL@", repr(HOSTILE)))
    live = terminal(python, script)
    assert "last line" in live or "exit code 3" in live
    assert _raw(live) == []
    command = [python, "-P", "-c", "from jobmon.cli.main import main; main()"]
    for words in (
        *(("workflow", "status"), ("workflow", "status", "-w", "1"), ("workflow", "errors", "-w", "1")),
        *(("workflow", "explain", "1"), ("task", "status", "1"), ("task", "explain", "1"), ("task", "logs", "1")),
        *(("task", "logs", "1", "--all"), ("workflow", "logs", "-w", "1"), ("workflow", "tasks", "-w", "1")),
        *(("db", "export", "-w", "1"), ("workflow", "reset", "-w", "1", "-y"), ("server", "logs")),
    ):
        shown = terminal(*command, *words)
        assert shown.strip(), words
        assert _raw(shown) == [], words
    assert SEQUENCES["clipboard"] in terminal(*command, "task", "logs", "1", "--raw")
    assert HOSTILE in world.victim.jobmon("task", "logs", "1").stdout, "a pipe gets what was written"
