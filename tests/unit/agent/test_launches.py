"""Launches from the server become commands; the messages of both sides have the same fields."""

import msgspec
import pytest

from jobmon.agent import reports
from jobmon.agent.launches import Surroundings, launches_of
from jobmon.core import texts
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.wire.agents import AgentLaunches
from jobmon.core.wire.launching import Report


def around(**values):
    default = {
        "workflow_id": 3,
        "workflow_run_id": 4,
        "directory": "/work",
        "umask": 0o27,
        "log_folder": "/logs",
        "shell": "/bin/sh",
        "cores": 2.0,
        "is_whole": False,
        "server_identity": "cafe",
    }
    return Surroundings(**default | values)


COLUMNS = msgspec.structs.asdict(
    AgentLaunches(
        task_instance_ids=[7, 1008],
        task_ids=[5, 6],
        names=["a", "b/c"],
        commands=["echo a", "echo b"],
        attempts=[1, 2],
        requests=[0, 1],
        requested_resources=[
            {"runtime": 5},
            {"env": {"N": 1}, "shell": "/bin/bash -e -c", "stdout": "/o", "stderr": "/e"},
        ],
        cores=[1.0, 8.0],
        memory_gib=[0.0, 2.0],
    )
)


def test_each_attempt_becomes_a_command_with_its_own_request():
    one, other = launches_of(COLUMNS, around())
    assert (one.words, one.runtime, one.cores, one.memory) == (["/bin/sh", "-c", "echo a"], 5, 1.0, 0.0)
    assert (one.stdout, one.stderr) == ("/logs/0/a.7.log", None)
    assert one.environment["JOBMON_TASK_ID"] == "5"
    assert (other.words, other.cores, other.memory) == (["/bin/bash", "-e", "-c", "echo b"], 2.0, 2.0)
    assert (other.stdout, other.stderr) == ("/o/b_c.1008.out", "/e/b_c.1008.err")
    assert (other.environment["N"], other.environment["JOBMON_ATTEMPT"]) == ("1", "2")
    assert one.environment["JOBMON_SERVER_IDENTITY"] == "cafe"


def test_declared_files_belong_to_their_attempt():
    files = {"1008": {"inputs": ["/in"], "outputs": ["/out/"]}}
    one, other = launches_of(COLUMNS | {"files": files}, around())
    assert (list(one.inputs), list(one.outputs)) == ([], [])
    assert (other.inputs, other.outputs) == (["/in"], ["/out/"])


def test_where_commands_take_the_whole_machine_one_runs_at_a_time():
    assert [one.cores for one in launches_of(COLUMNS, around(is_whole=True, cores=1.0))] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("/bin/bash", ["/bin/bash", "-c"]),
        ("bash -e -c", ["bash", "-e", "-c"]),
        ("bash -euo pipefail", ["bash", "-euo", "pipefail", "-c"]),
        ("bash -leuo pipefail", ["bash", "-leuo", "pipefail", "-c"]),
        ("/bin/bash -lc", ["/bin/bash", "-lc"]),
        (["/my shell", "-x"], ["/my shell", "-x", "-c"]),
        ("'/my shell' -x", ["/my shell", "-x", "-c"]),
    ],
)
def test_a_shell_without_the_flag_gets_it(shell, words):
    columns = COLUMNS | {"requested_resources": [{"shell": shell}, {}]}
    own, other = launches_of(columns, around())
    assert own.words == [*words, "echo a"]
    assert other.words == ["/bin/sh", "-c", "echo b"]
    default, _ = launches_of(COLUMNS, around(shell=shell))
    assert default.words == [*words, "echo a"]


def test_the_words_of_both_sides_agree():
    assert reports.RUNNING == TaskInstanceStatus.RUNNING
    assert reports.ERROR_FATAL == TaskInstanceStatus.ERROR_FATAL
    assert reports.ERROR_CHARACTERS_MAX == texts.ERROR_CHARACTERS_MAX
    fields = set(Report.__struct_fields__)
    assert set(reports.of_unstarted(1, "E", "killed", "why")) <= fields
