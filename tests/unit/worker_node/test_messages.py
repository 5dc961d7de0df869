"""The hand-written messages of a job match the contract, and its rules match the distributor's."""

import json
import subprocess
import sys

import pytest

from jobmon.agent import outcome, outputs, reports
from jobmon.agent.attempts import Attempt as Record
from jobmon.agent.environment import for_command
from jobmon.agent.files import Found
from jobmon.agent.launches import Surroundings, launches_of
from jobmon.agent.shells import shell_words
from jobmon.agent.starting import Launch, NotStarted
from jobmon.core import wire
from jobmon.core.constants import LOG_TAIL_BYTES_MAX, Cause, TaskInstanceStatus
from jobmon.core.wire import replace
from jobmon.core.wire.launching import (
    FoundFile,
    LaunchFiles,
    Report,
    WorkerReportRequest,
    WorkerReportResponse,
    WorkerStartRequest,
    WorkerStartResponse,
)
from jobmon.worker_node import process
from jobmon.worker_node.answers import columns_of_start, is_last_word, is_report_answer, is_start_answer
from jobmon.worker_node.host import JobHost
from jobmon.worker_node.single import SingleJob

JOB = WorkerStartResponse(
    task_instance_id=12_345,
    task_id=2,
    workflow_id=3,
    workflow_run_id=4,
    task_name="fit",
    attempt=2,
    command="true",
    requested_resources={},
    working_directory="/",
    umask=18,
    heartbeat_interval=90.0,
    report_by_buffer=3.1,
)


def launch_of(job=JOB):
    """Return the command in an answer of the server."""
    content = json.loads(wire.encode(job))
    assert is_start_answer(content)
    around = Surroundings(3, 4, "/", 18, "/logs/3", "/bin/sh", 1.0, False, "")
    (launch,) = launches_of(columns_of_start(content), around)
    return launch


def ended(attempt, tail=b"", **more):
    """Return the report of an attempt, as a job sends it."""
    return {**reports.of_end(attempt, tail, "host", **more), "distributor_id": "77"}


def ending(**values):
    one = Record(Launch(12_345, [], {}, "/", 0o022, "/o"))
    one.pid, one.started_at, one.ended_at = 99, 1_700_000_000.25, 1_700_000_001.25
    for name, value in values.items():
        setattr(one, name, value)
    return one


def test_its_words_are_those_of_the_law():
    statuses = {reports.RUNNING, outcome.DONE, outcome.ERROR, outcome.RESOURCE_ERROR, outcome.UNKNOWN_ERROR}
    assert statuses | {outcome.ERROR_FATAL} == {
        *(TaskInstanceStatus.RUNNING, TaskInstanceStatus.DONE, TaskInstanceStatus.ERROR),
        TaskInstanceStatus.ERROR_FATAL,
        *(TaskInstanceStatus.RESOURCE_ERROR, TaskInstanceStatus.UNKNOWN_ERROR),
    }
    causes = {outcome.EXIT_CODE, outcome.SIGNAL, outcome.NOT_STARTED, outcome.KILLED, outcome.OUT_OF_MEMORY}
    causes |= {outcome.OUT_OF_TIME, outcome.WORKER_LOST, outcome.SUPERVISOR_LOST}
    causes |= {outcome.INPUT_MISSING, outcome.OUTPUT_MISSING}
    assert causes == {
        *(Cause.EXIT_CODE, Cause.SIGNAL, Cause.COMMAND_NOT_STARTED, Cause.KILLED, Cause.OUT_OF_MEMORY),
        *(Cause.OUT_OF_TIME, Cause.WORKER_LOST, Cause.SUPERVISOR_LOST),
        *(Cause.INPUT_MISSING, Cause.OUTPUT_MISSING),
    }
    assert outputs.LOG_TAIL_BYTES_MAX == LOG_TAIL_BYTES_MAX


def test_its_report_is_the_contracts():
    report = ended(ending(exit_code=0), b"fine\n")
    assert set(report) == set(Report.__struct_fields__) - {"of_job", "files", "missing_file"}
    (decoded,) = wire.decode(WorkerReportRequest, json.dumps({"reports": [report]}).encode()).reports
    assert decoded.status == TaskInstanceStatus.DONE
    assert decoded.started_at.timestamp() == 1_700_000_000.25
    assert decoded.distributor_id == "77"


def test_the_files_in_its_report_are_the_contracts():
    found = Found([("/a/*", 2, 10, 5)], "")
    report = ended(ending(exit_code=0, inputs=found, outputs=Found([], "/b")))
    assert set(report) == set(Report.__struct_fields__) - {"of_job"}
    (decoded,) = wire.decode(WorkerReportRequest, json.dumps({"reports": [report]}).encode()).reports
    assert decoded.files == [FoundFile(is_output=False, path="/a/*", matches=2, size_bytes=10, modified=5)]
    assert (decoded.status, decoded.cause, decoded.missing_file) == ("E", Cause.OUTPUT_MISSING, "/b")


def test_it_gets_the_declared_files_of_its_command():
    assert (list(launch_of().inputs), list(launch_of().outputs)) == ([], [])
    launch = launch_of(replace(JOB, files=LaunchFiles(inputs=["/a"], outputs=["/b"])))
    assert (launch.inputs, launch.outputs) == (["/a"], ["/b"])


def test_its_heartbeat_is_the_contracts(tmp_path):
    job = SingleJob({"host": "here", "distributor_id": None}, {"JOBMON_DATA_DIR": str(tmp_path)}, JobHost({}))
    content = json.loads(wire.encode(JOB))
    job._prepare()
    job._begin(content)
    job._is_begun = True
    assert set(job._next_message(0.0)) == set(WorkerReportRequest.__struct_fields__)
    assert is_report_answer(json.loads(wire.encode(WorkerReportResponse())))


@pytest.mark.parametrize(
    "options",
    [["--task-instance-id", "5"], ["--array-id", "1", "--batch-number", "2", "--array-step-variable", "STEP"]],
)
def test_its_first_request_is_the_contracts(options):
    request = process.start_request(process.options_of(options), {"STEP": "3"}, "host", 1)
    decoded = wire.decode(WorkerStartRequest, json.dumps(request).encode())
    assert set(request) == set(WorkerStartRequest.__struct_fields__)
    assert decoded.task_instance_id == 5 or decoded.array_step_id == 3


@pytest.mark.parametrize(
    ("values", "status", "cause", "error"),
    [
        ({"exit_code": 0}, "D", None, None),
        ({"exit_code": 3}, "E", Cause.EXIT_CODE, "exit code 3: last"),
        ({"signal": 9}, "E", Cause.SIGNAL, "killed by signal 9 (SIGKILL): last"),
        ({"signal": 63}, "E", Cause.SIGNAL, "killed by signal 63: last"),
        ({"not_started": NotStarted("no such folder")}, "E", Cause.COMMAND_NOT_STARTED, "not started: no such folder"),
    ],
)
def test_how_endings_are_told(values, status, cause, error):
    report = ended(ending(**values), b"first\nlast\n\n")
    assert (report["status"], report["cause"], report["error"]) == (status, cause, error)


def test_what_was_killed_has_not_finished():
    report = ended(ending(exit_code=0), is_killed=True)
    assert (report["status"], report["cause"]) == ("E", Cause.KILLED)


@pytest.mark.parametrize(
    ("status", "content", "is_last"),
    [
        (409, {"kind": "AttemptOver", "message": "it has ended"}, True),
        (404, {}, False),
        (401, {"kind": "Unauthorized", "message": "no"}, False),
        (503, {"kind": "Busy", "message": "later"}, False),
    ],
)
def test_which_refusals_are_final(status, content, is_last):
    assert is_last_word(status, content) is is_last


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash -lc", ["/bin/zsh"]])
def test_shells_are_read_as_the_distributor_does(shell):
    launch = launch_of(replace(JOB, requested_resources={"shell": shell}))
    assert tuple(launch.words) == (*shell_words(shell), "true")


def test_the_command_does_not_get_the_token():
    assert for_command({"JOBMON_TOKEN": "secret", "PATH": "/bin"}) == {"PATH": "/bin"}
    assert launch_of().environment["JOBMON_TASK_INSTANCE_ID"] == "12345"


@pytest.mark.parametrize("kind", ["single", "pilot"])
def test_it_imports_little(kind):
    code = (
        f"import sys; sys.path.append(sys.argv[1]); import jobmon.worker_node.process, jobmon.worker_node.{kind}; "
        "print([m for m in sys.modules if m in ('dataclasses', 'enum', 'http.client',"
        " 'collections', 'json', 're', 'signal', 'socket', 'subprocess', 'typing', 'ssl')"
        " or m.startswith('jobmon.core')])"
    )
    root = process.__file__.split("/jobmon/worker_node/")[0]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
