"""Bounds that must fit each other, multiplied: how many at once, times how large each may be."""

import json

from jobmon.agent import fastjson, http, journal, outputs, settlement, watcher
from jobmon.agent import outbox as agent_outbox
from jobmon.client import launching as client_launching
from jobmon.client import waiting
from jobmon.client.task import NAME_CHARACTERS_MAX
from jobmon.client.task_template_version import COMMAND_BYTES_MAX
from jobmon.core import constants, files, wire
from jobmon.core.texts import ERROR_CHARACTERS_MAX
from jobmon.core.wire import agents, launching, swarm
from jobmon.core.wire.binding import REQUEST_BYTES_MAX
from jobmon.core.wire.credentials import Hello
from jobmon.core.wire.launching import (
    COMMAND_CHARACTERS_PER_RESPONSE_MAX,
    LAUNCHES_PER_RESPONSE_MAX,
    FoundFile,
    Report,
    SyncRequest,
    WorkerReportRequest,
)
from jobmon.core.wire.swarm import QueueRequest, TaskToArm
from jobmon.distributor import cluster_calls, outbox, undelivered
from jobmon.distributor.classic import PENDING_MAX
from jobmon.server import auth, connections
from jobmon.server.armed import ARMED_SETS_MAX
from jobmon.server.usecases import packed_jobs
from jobmon.worker_node import job, pilot

#: A character may become "\u0000" in JSON.
BYTES_PER_CHARACTER = 6
PATH_CHARACTERS_MAX = 4096
#: Attempts that one distributor or packed job may have at once, generously, and digits of an id with its comma.
ALIVE_MAX = 200_000
ID_BYTES = 20


def largest_report():
    """Return a report in which each text is as long as it may be and full of what JSON makes longest."""
    path, worst = "\x01" * PATH_CHARACTERS_MAX, "\x01"
    declared = worst * (files.TASK_CHARACTERS_MAX // files.FILES_PER_ATTEMPT_MAX)
    found = FoundFile(is_output=False, path=declared, matches=2**31 - 1, size_bytes=2**63 - 1, modified=-(2**63 - 1))
    return Report(
        task_instance_id=2**63 - 1,
        status="E",
        distributor_id=worst * 255,
        host=worst * 255,
        cause=worst * 32,
        error=worst * ERROR_CHARACTERS_MAX,
        log_tail=worst * constants.LOG_TAIL_BYTES_MAX,
        stdout=path,
        stderr=path,
        files=[found] * files.FILES_PER_ATTEMPT_MAX,
        missing_file=path,
    )


LARGEST_BYTES = len(wire.encode(largest_report()))


def test_a_portion_of_reports_with_all_else_fits_into_a_request():
    pending = cluster_calls.PENDING_CHARACTERS_MAX * BYTES_PER_CHARACTER * PENDING_MAX
    rest = ALIVE_MAX * ID_BYTES + pending + len(wire.encode(SyncRequest(epoch=1)))
    assert settlement.PORTION_BYTES_MAX + LARGEST_BYTES + rest <= REQUEST_BYTES_MAX


def test_the_largest_report_fits_into_a_request_that_was_halved_and_into_a_file():
    assert LARGEST_BYTES <= settlement.PORTION_BYTES_MAX // 2
    kept = wire.encode(WorkerReportRequest(reports=[largest_report()]))
    assert len(kept) <= journal.FILE_BYTES_MAX
    assert len(fastjson.dumps({"log_tail": "\x01" * outputs.LOG_TAIL_BYTES_MAX})) <= journal.FILE_BYTES_MAX


def test_bytes_that_are_not_text_take_no_more_room_than_characters():
    assert len(fastjson.dumps(b"\xff".decode(errors="replace"))) - 2 <= BYTES_PER_CHARACTER
    assert len(outputs.tail_text(b"\xff" * constants.LOG_TAIL_BYTES_MAX)) == constants.LOG_TAIL_BYTES_MAX


def test_what_is_read_from_disk_at_once_fits_into_the_outbox():
    assert undelivered.FILES_MAX <= outbox.OUTBOX_REPORTS_MAX
    assert outbox.OUTBOX_REPORTS_MAX * LARGEST_BYTES <= 2 * 1024**3, "memory"


def test_a_request_to_queue_with_all_that_it_may_arm_fits():
    largest = 2**63 - 1
    armed = TaskToArm(
        task_id=largest,
        task_resources_id=largest,
        cluster_id=largest,
        missing=[largest] * swarm.MISSING_UPSTREAMS_MAX,
    )
    request = QueueRequest(batches=[], armed=[armed] * swarm.ARMED_TASKS_MAX, disarm=[largest] * swarm.ARMED_TASKS_MAX)
    assert len(wire.encode(request)) + swarm.QUEUE_BATCH_MAX * ID_BYTES <= REQUEST_BYTES_MAX
    memory = ARMED_SETS_MAX * swarm.ARMED_TASKS_MAX * swarm.MISSING_UPSTREAMS_MAX
    assert memory <= 5_000_000, "entries in the server's memory, if that many workflows run at once"


def test_the_counts_of_senders_are_those_that_the_server_takes():
    assert agent_outbox.REPORTS_PER_REQUEST_MAX <= launching.REPORTS_PER_REQUEST_MAX
    assert PENDING_MAX <= launching.REPORTS_PER_REQUEST_MAX
    assert job.PENDING_MAX <= launching.REPORTS_PER_REQUEST_MAX
    assert pilot.TASKS_PER_REQUEST_MAX <= packed_jobs.TASKS_PER_TAKE_MAX


def test_commands_and_names_in_an_answer_fit_into_what_a_worker_reads():
    characters = max(COMMAND_CHARACTERS_PER_RESPONSE_MAX, COMMAND_BYTES_MAX)
    per_task = NAME_CHARACTERS_MAX * BYTES_PER_CHARACTER + 3 * ID_BYTES
    tasks = max(packed_jobs.TASKS_PER_TAKE_MAX, LAUNCHES_PER_RESPONSE_MAX)
    assert characters * BYTES_PER_CHARACTER + tasks * per_task + 1024**2 <= http.ANSWER_BYTES_MAX


def test_all_that_an_agent_says_at_once_fits_into_a_request():
    inventory = 2 * agents.ATTEMPTS_PER_REQUEST_MAX * ID_BYTES
    rest = inventory + len(wire.encode(agents.AgentSyncRequest(key=1)))
    assert settlement.PORTION_BYTES_MAX + LARGEST_BYTES + rest <= REQUEST_BYTES_MAX
    assert agent_outbox.REPORTS_PER_REQUEST_MAX <= launching.REPORTS_PER_REQUEST_MAX


def test_an_agent_does_not_underestimate_a_report():
    path = "\x01" * PATH_CHARACTERS_MAX
    report = {
        "task_instance_id": 2**63 - 1,
        "status": "D",
        "host": "h" * 64,
        "pid": 2**22,
        "started_at": "2026-11-30T18:43:16.824131Z",
        "ended_at": "2026-11-30T18:43:16.824131Z",
        "exit_code": 0,
        "signal": None,
        "cause": None,
        "error": None,
        "log_tail": None,
        "stdout": path,
        "stderr": path,
        "wallclock_seconds": 1e9 / 3,
        "cpu_seconds": 1e9 / 3,
        "max_rss_bytes": 2**50,
        "read_bytes": 2**50,
        "written_bytes": 2**50,
    }
    outbox = agent_outbox.Outbox()
    for _ in range(agent_outbox.REPORTS_PER_REQUEST_MAX):
        outbox.add(report)
    assert len(fastjson.dumps(outbox.take())) <= settlement.PORTION_BYTES_MAX + LARGEST_BYTES


def test_strangers_fill_neither_memory_nor_descriptors():
    assert connections.STRANGERS_MAX * connections.HEAD_BYTES_MAX <= 16 * 1024**2
    assert connections.STRANGERS_MAX + connections.DESCRIPTORS_RESERVED < 1024, "a usual soft limit"
    longest = "x" * NAME_CHARACTERS_MAX
    assert len(wire.encode(Hello(identity=longest, address=longest, nonce=longest))) <= auth.HELLO_BYTES_MAX


#: The longest string that Linux accepts in an environment (MAX_ARG_STRLEN).
VARIABLE_BYTES_MAX = 131_072


def test_what_a_watcher_remembers_fits_into_one_environment_variable():
    runs = {str(2**63 - 1 - number): 2**63 - 1 for number in range(watcher.RUNS_MAX)}
    path = "\x01" * PATH_CHARACTERS_MAX
    about = {"pid": 2**31, "report": 2**31, "log": path, "token": "x" * 36, "is_restart": False, "runs": runs}
    assert len(f"{watcher.VARIABLE}={json.dumps(about)}") < VARIABLE_BYTES_MAX
    assert len(json.dumps({"workflow": 2**63, "run": 2**63, "log": path})) < watcher.LINE_BYTES_MAX


def test_a_leader_is_restarted_as_often_as_a_distributor_and_those_who_wait_are_patient_enough():
    assert watcher.RESTARTS_MAX == client_launching.RESTARTS_MAX
    assert watcher.RESTART_PAUSE_SECONDS < waiting.SUCCESSION_SECONDS_MAX / 10
