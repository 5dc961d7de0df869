"""Slurm's output: recorded from a real cluster (22.05), and invalid."""

from pathlib import Path

import pytest

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.batch.endings import Ending
from jobmon.plugins.batch.endings import remote_exit as told_exit
from jobmon.plugins.batch.view import Endings, View, steps_of_marks, view_of
from jobmon.plugins.slurm import discovery, parsing
from jobmon.plugins.slurm.endings import endings_of_accounting, verdict
from jobmon.plugins.slurm.view import accounted, listed, never_starts, pending_reason

TI = TaskInstanceStatus


def recorded(name):
    return (Path(__file__).parent / "recorded" / f"{name}.txt").read_text()


def remote_exit(ending, user_name):
    return told_exit("Slurm", ending, verdict(ending, user_name))


@pytest.fixture
def view():
    queue = parsing.queue_rows(recorded("squeue"))
    accounting = parsing.accounting_rows(recorded("sacct"))
    return View(view_of(1_000.0, listed(queue), accounted(accounting)))


# -- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12_[0-3,7%2]", ["12_0", "12_1", "12_2", "12_3", "12_7"]),
        ("12_[0-8:4]", ["12_0", "12_4", "12_8"]),
        ("12_3.batch", ["12_3"]),
    ],
)
def test_ids_are_read_as_slurm_writes_them(text, ids):
    assert list(parsing.job_ids(text)) == ids


@pytest.mark.parametrize("text", ["", "x", "12_", "12_[]", "12_[3-1]", "12_[0-4000000000]", "12_[0-9:0]", "1+1"])
def test_what_is_no_id_is_none(text):
    assert parsing.job_ids(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00.085", 0.085),
        ("01:02:03", 3723.0),
        ("1-02:03:04", 93784.0),
        ("UNLIMITED", None),
        ("", None),
        ("12", None),
    ],
)
def test_durations(text, seconds):
    assert parsing.duration_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3289088", 3289088),
        ("1155K", 1182720),
        ("50M", 50 * 2**20),
        ("100Mc", 100 * 2**20),
        ("1.50G", 3 * 2**29),
        ("", None),
    ],
)
def test_sizes(text, count):
    assert parsing.size_bytes(text) == count


@pytest.mark.parametrize("answer", ["12\n", "12;cluster\n", "sbatch: warning of a site\n12\n"])
def test_the_id_of_a_new_job(answer):
    assert parsing.submitted_id(answer) == "12"


@pytest.mark.parametrize("answer", ["", "Submitted batch job", "\n", "-5"])
def test_an_answer_without_an_id_leaves_open_what_happened(answer):
    with pytest.raises(ClusterUnavailable):
        parsing.submitted_id(answer)


def test_a_foreign_job_with_a_line_break_in_its_name_does_not_hurt():
    assert "odd\nname|x" in recorded("squeue")
    names = {row.name for row in parsing.queue_rows(recorded("squeue"))}
    assert {"odd", "one.jm-a1-1-2-0+1"} <= names


# -- the view -------------------------------------------------------------------------------------------------------


def test_what_runs_and_what_waits_is_held_and_foreign_jobs_are_not(view):
    assert {one.text for one in view.held} == {"230_0", "230_1", "230_[2-9]", "231"}
    assert view.holds("230_9")
    assert view.holds("230")
    assert not view.holds("230_10")
    assert not view.holds("232")
    assert not view.holds("157")


def test_each_ending_has_its_cause(view):
    found = {
        one: remote_exit(view.ended[one], lambda user: f"user{user}")
        for one in ("151", "152", "153", "154", "155", "156", "157", "158", "159_0", "159_3")
    }
    assert {one: (told.status, told.cause, told.exit_code or told.signal) for one, told in found.items()} == {
        "151": (TI.ERROR, Cause.EXIT_CODE, 7),
        "152": (TI.ERROR, Cause.EXIT_CODE, 1),
        "153": (TI.ERROR, Cause.SIGNAL, 11),
        "154": (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, None),
        "155": (TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, None),
        "156": (TI.ERROR, Cause.KILLED, None),
        "157": (TI.ERROR, Cause.NODE_FAILURE, None),
        "158": (TI.ERROR, Cause.EXIT_CODE, 127),
        "159_0": (TI.DONE, None, None),
        "159_3": (TI.ERROR, Cause.EXIT_CODE, 3),
    }
    assert found["154"].max_rss_bytes == 1159168
    assert found["155"].wallclock_seconds == 6.0


def test_who_cancelled_and_the_pending_rest_of_an_array():
    rows = parsing.accounting_rows(recorded("sacct_cancelled"))
    endings = Endings(100)
    endings.add(endings_of_accounting(rows))
    for identity in ("235", "236_0", "236_2", "236_5"):
        assert remote_exit(endings.find(identity), {"0": "root"}.get).message == "Slurm: cancelled by root"
    assert endings.find("236_6") is None


def test_steps_of_an_array_cancelled_as_a_whole_ended_with_it():
    endings = Endings(100)
    endings.add({"16": Ending(state="CANCELLED"), "17": Ending(state="COMPLETED"), "16_1": Ending(state="FAILED")})
    assert endings.find("16_50").state == "CANCELLED"
    assert endings.find("16_1").state == "FAILED"
    assert endings.find("17_0") is None


def test_the_controllers_word_never_replaces_that_of_accounting():
    endings = Endings(100)
    endings.add({"5": Ending(state="TIMEOUT", max_rss_bytes=7)})
    endings.add({"5": Ending(state="TIMEOUT", is_accounted=False)})
    assert endings.find("5").max_rss_bytes == 7


def test_old_endings_are_forgotten():
    endings = Endings(2)
    endings.add({str(number): Ending(state="COMPLETED") for number in range(5)})
    assert [endings.find(str(number)) is None for number in range(5)] == [True, True, True, False, False]


def test_what_was_put_back_into_the_queue_has_ended_as_the_attempt_it_was():
    line = "\x1f".join(["9", "RUNNING", "0", "None", "1", "2", "1", "n1", "a.jm-a1-1-1-0+1"])
    header = recorded("squeue").split("\n")[0]
    view = View(view_of(1.0, listed(parsing.queue_rows(f"{header}\n{line}\n"))))
    assert not view.holds("9")
    assert remote_exit(view.ended["9"], str).cause is Cause.REQUEUED


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": 99},
        {"version": 2, "at": "x", "held": [], "ended": []},
        {"version": 2, "at": 1, "held": [[1]], "ended": []},
    ],
)
def test_a_view_that_is_none_is_refused(content):
    with pytest.raises(ClusterUnavailable, match="view"):
        View(content)


# -- why jobs wait --------------------------------------------------------------------------------------------------


def test_reasons_are_told_in_slurms_word_and_ours(view):
    assert pending_reason(view.find("231"), "") == "JobHeldUser: held; 'scontrol release' releases it"
    assert "estimated start 12:00" in pending_reason(view.find("230_5"), "12:00")
    assert never_starts(view.find("231")) is None
    assert never_starts(view.find("230_0")) is None


@pytest.mark.parametrize("reason", ["InvalidAccount", "QOSMaxCpuPerJob", "PartitionTimeLimit"])
def test_some_reasons_no_waiting_lifts(reason):
    line = "\x1f".join(["9", "PENDING", "0", reason, "N/A", "N/A", "0", "", "a.jm-a1-1-1-0+1"])
    header = recorded("squeue").split("\n")[0]
    view = View(view_of(1.0, listed(parsing.queue_rows(f"{header}\n{line}\n"))))
    assert reason in never_starts(view.find("9"))


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_one_row_tells_all_ids_of_a_submission():
    rows = [
        ("a.jm-x-1-2-0+3", parsing.job_ids("40_[1-2]")),
        ("a.jm-x-1-2-3+1", parsing.job_ids("41")),
        ("b", parsing.job_ids("9")),
    ]
    assert steps_of_marks(rows, {"jm-x-1-2", "jm-x-1-3"}) == {"jm-x-1-2": {0: "40_0", 1: "40_1", 2: "40_2", 3: "41"}}


# -- endings that the test cluster does not make --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "cause", "words"),
    [
        (Ending("FAILED", 0, 53, host="n1"), Cause.COMMAND_NOT_STARTED, "output file could not be opened on n1"),
        (Ending("FAILED", 0, 9, max_rss_bytes=60, requested_bytes=50), Cause.OUT_OF_MEMORY, "more memory"),
        (Ending("FAILED", 0, 9, max_rss_bytes=40, requested_bytes=50), Cause.SIGNAL, "signal 9"),
        (Ending("PREEMPTED"), Cause.PREEMPTED, "preempted"),
        (Ending("BOOT_FAIL"), Cause.NODE_FAILURE, "booted"),
        (Ending("DEADLINE"), Cause.KILLED, "deadline"),
        (Ending("NEW_STATE"), Cause.WORKER_LOST, "NEW_STATE"),
    ],
)
def test_rarer_endings(ending, cause, words):
    told = remote_exit(ending, str)
    assert told.cause is cause
    assert words in told.message


@pytest.mark.parametrize(
    ("ended_by", "status", "words"),
    [
        ("7", TI.ERROR_FATAL, "cancelled by you as user7"),
        ("0", TI.ERROR, "cancelled by user0"),
        (None, TI.ERROR, "cancelled"),
    ],
)
def test_what_its_own_user_cancels_is_not_to_come_back(ended_by, status, words):
    told = verdict(Ending("CANCELLED", ended_by=ended_by), "user{}".format, "7")
    assert told[:2] == (status, Cause.KILLED)
    assert told[2].startswith(words)


# -- discovery ------------------------------------------------------------------------------------------------------


def found(partitions=None, nodes=None):
    return discovery.queues_of(
        parsing.partitions(partitions or recorded("partitions")),
        parsing.node_kinds(nodes or recorded("sinfo")),
        parsing.configuration(recorded("config")),
    )


def test_partitions_become_queues_the_default_one_first():
    assert found() == [
        ("short", {"min_memory": 0.015625, "max_cores": 16, "max_memory": 7.8125, "max_runtime": 300.0,
                   "default_cores": 1, "default_memory_per_core": 0.09765625, "default_runtime": 60.0}),
        ("long", {"min_memory": 0.015625, "max_cores": 16, "max_memory": 7.8125, "max_runtime": 86400.0,
                  "default_cores": 1, "default_memory_per_core": 0.09765625, "default_runtime": 3600.0}),
    ]  # fmt: skip


def test_a_partition_has_the_largest_of_its_nodes_and_without_limit_none():
    first, _ = recorded("partitions").splitlines()
    text = first.replace("MaxTime=00:05:00", "MaxTime=UNLIMITED").replace("DefaultTime=00:01:00", "DefaultTime=NONE")
    text = text.replace("DefMemPerNode=UNLIMITED", "DefMemPerNode=2048").replace(
        "MaxMemPerNode=UNLIMITED", "MaxMemPerNode=9000"
    )
    separated = "\x1f".join
    nodes = separated(["short", "16", "8000", "4", "gpu:a100:4", "avx,ib"]) + "\n"
    nodes += separated(["short", "64+", "512000", "2", "(null)", "big"]) + "\n"
    [(_, parameters)] = discovery.queues_of(
        parsing.partitions(text), parsing.node_kinds(nodes), {"SLURM_VERSION": "22.05.8"}
    )
    assert parameters == {
        "min_memory": 0.015625, "max_cores": 64, "max_memory": 9000 / 1024, "default_cores": 1, "default_memory": 2.0,
        "features": ["avx", "big", "ib"], "gres": ["gpu:a100:4"],
    }  # fmt: skip


def test_closed_partitions_are_left_out():
    text = recorded("partitions").replace("State=UP", "State=INACTIVE", 1)
    assert [name for name, _ in found(partitions=text)] == ["long"]


def test_a_group_takes_what_any_of_its_partitions_takes():
    assert discovery.group_of("long,short", found())["max_runtime"] == 86400.0
    assert discovery.group_of("long,short", found())["default_runtime"] == 3600.0
    assert discovery.group_of("short,short", found()) is None
    assert discovery.group_of("short,", found()) is None
