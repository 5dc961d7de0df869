"""Requests to Grid Engine, and its responses: recorded from a real cluster (8.1.9), and damaged."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.batch import Answer, Ending, Mark, Submission
from jobmon.plugins.batch.submission import job_script
from jobmon.plugins.batch.view import Endings, View, view_of
from jobmon.plugins.gridengine import GridEngineQueue, commands, discovery, parsing
from jobmon.plugins.gridengine.answers import TEXTS
from jobmon.plugins.gridengine.endings import verdict

TI = TaskInstanceStatus
RECORDED = Path(__file__).parent / "recorded"
QSTAT, QACCT = (RECORDED / name for name in ("qstat.xml", "qacct.txt"))


def submission(length=1, first=0, name="align reads", **requested):
    return Submission(name, Mark("jm-ab12-3-4", first, length), "python worker.py", "/data/jobs.log", requested)


def qsub(settings=None, **values):
    return commands.qsub_arguments(submission(**values), settings or {})


# -- requests -------------------------------------------------------------------------------------------------------


def test_a_single_job_says_what_it_asks_for_in_grid_engines_units():
    assert qsub(queue="short.q", cores=1, memory=0.0500001, runtime=61.5, project="p")[12:] == [
        "-N", "align_reads.jm-ab12-3-4-0+1", "-q", "short.q", "-P", "p", "-l", "h_vmem=52M,h_rt=62",
    ]  # fmt: skip


def test_memory_is_shared_out_among_the_slots_of_a_job_and_the_resources_can_be_called_otherwise():
    site = {"memory_resource": "m_mem_free", "runtime_resource": "s_rt", "parallel_environment": "shm"}
    words = qsub(site, cores=4, memory=2.0, runtime=5, resources={"gpu": 1}, excluded_hosts=["n1", "n2"])
    assert words[14:] == ["-pe", "shm", "4", "-l", "m_mem_free=512M,s_rt=5,hostname=!n1&!n2,gpu=1"]
    assert "smp" in qsub(cores=2)
    assert "mine" in qsub(site, cores=2, parallel_environment="mine")


def test_tasks_of_an_array_count_from_one_and_its_script_says_the_step():
    part = submission(length=4, first=8, array_limit=2)
    words = commands.qsub_arguments(part, {})
    assert words[words.index("-t") + 1] == "1-4"
    assert words[words.index("-tc") + 1] == "2"
    assert 'JOBMON_DISTRIBUTOR_ID="${JOB_ID}.${SGE_TASK_ID}" JOBMON_STEP="$((SGE_TASK_ID + 7))"' in job_script(
        part, commands.VARIABLES, commands.FORM
    )
    whole = job_script(submission(length=4), commands.VARIABLES, commands.FORM)
    assert 'JOBMON_STEP="$((SGE_TASK_ID - 1))"' in whole
    assert part.mark.ids("12", commands.FORM) == {8: "12.1", 9: "12.2", 10: "12.3", 11: "12.4"}


def test_a_name_does_not_begin_with_a_digit():
    assert commands.name_of(submission(name="1st")) == "_1st.jm-ab12-3-4-0+1"


def test_tasks_that_follow_each_other_are_deleted_as_a_range():
    assert commands.qdel_arguments(["7", "12.3", "12.1", "12.2", "12.9"]) == [["qdel", "12.1-3", "12.9", "7"]]
    assert len(commands.qdel_arguments(str(number) for number in range(1_001))) == 3


def test_times_are_asked_for_as_the_tools_then_read_them():
    assert commands.qacct_arguments("me", 86_401.0)[4:] == ["-b", "197001020000.01", "-j"]
    assert commands.tool_environment({"JOB_ID": "5", "SGE_ROOT": "/r"})["TZ"] == "UTC0"
    assert "JOB_ID" not in commands.job_environment({"JOB_ID": "5", "SGE_TASK_ID": "3", "SGE_ROOT": "/r"})


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"slots": 2}, "requested as cores"),
        ({"array_limit": 0}, "an integer of at least"),
        ({"resources": "gpu=1"}, "must be a dict"),
        ({"qsub": {"t": "1-3"}}, "as arrays automatically"),
        ({"qsub": ["-q", "x"]}, "use 'queue'"),
        ({"qsub": "-p 1"}, "must be a dict"),
        ({"parallel_environment": ""}, "without spaces"),
        ({"frobnicate": 1}, "Unknown resource"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_say_instead(resources, words):
    is_valid, text = GridEngineQueue(1, "short.q", {}).validate_resources(True, **resources)
    assert not is_valid
    assert words in text


def test_a_good_request_is_taken():
    good = {"cores": 2, "memory": "1G", "resources": {"gpu": 1}, "qsub": {"p": -10, "m": None}, "array_limit": 5}
    assert GridEngineQueue(1, "short.q", {}).validate_resources(True, **good) == (True, "")
    assert commands.further_options(good["qsub"]) == ["-p", "-10"]


# -- what it answers ------------------------------------------------------------------------------------------------

UNABLE = "Unable to run job: "


@pytest.mark.parametrize(
    ("error_text", "expected"),
    [
        (f"{UNABLE}job rejected: only 2 jobs are allowed per user (current job count: 2)\nExiting.", Answer.FULL),
        (f"{UNABLE}job rejected: only 2 jobs are allowed per cluster\nExiting.", Answer.FULL),
        (f'{UNABLE}Job was rejected because job requests unknown queue "x"\nExiting.', Answer.REJECTED),
        (f'{UNABLE}job rejected: the requested project "x" does not exist\nExiting.', Answer.REJECTED),
        (f'{UNABLE}unknown resource "x"\nExiting.', Answer.REJECTED),
        (f"{UNABLE}job rejected: you tried to submit a job with more than 75000 tasks\nExiting.", Answer.REJECTED),
        ('qsub: invalid option argument "-frob"', Answer.REJECTED),
        (
            "error: commlib error: got select error (Connection refused)\n"
            f'{UNABLE}unable to send message to qmaster using port 6444 on host "h": got send error\nExiting.',
            Answer.UNREACHED,
        ),
        (f"{UNABLE}an unknown message\nExiting.", Answer.UNKNOWN),
    ],
)
def test_what_qsub_means(error_text, expected):
    assert TEXTS.answer_of(error_text) is expected
    assert "Exiting" not in TEXTS.in_words("qsub", error_text)


def test_the_number_of_a_new_job():
    assert parsing.submitted_id("12\n") == parsing.submitted_id("a site's greeting\n12.1-10:1\n") == "12"
    for answer in ("", "Your job 12 has been submitted", "-5"):
        with pytest.raises(ClusterUnavailable):
            parsing.submitted_id(answer)


def test_what_runs_and_what_waits_is_held_and_each_ending_has_its_cause():
    view = View(view_of(1.0, parsing.listed(QSTAT.read_text()), parsing.accounted(QACCT.read_text())), commands.FORM)
    assert {one.text: (one.state, one.is_pending) for one in view.held} == {
        "28.1": ("r", False), "28.5": ("r", False), "28.6": ("qw", True), "25": ("Eqw", True), "26": ("Eqw", True),
    }  # fmt: skip
    assert view.holds("28.6")
    assert not view.holds("28.2")
    endings = Endings(100, commands.FORM)
    endings.add(view.ended)
    told = {one: verdict(endings.find(one))[:2] for one in ("18", "17.3", "19", "20", "22", "23", "27", "28.1")}
    assert told == {
        "18": (TI.ERROR, Cause.EXIT_CODE),
        "17.3": (TI.ERROR, Cause.EXIT_CODE),
        "19": (TI.ERROR, Cause.SIGNAL),
        "20": (TI.RESOURCE_ERROR, Cause.OUT_OF_TIME),
        "22": (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY),
        "23": (TI.ERROR, Cause.SIGNAL),
        "27": (TI.ERROR, Cause.EXIT_CODE),
        "28.1": (TI.DONE, None),
    }
    seen = endings.find("20")
    assert (seen.started_at, seen.ended_at - seen.started_at, seen.requested_seconds) == (1796063636.0, 4.0, 3.0)


@pytest.mark.parametrize(
    ("ending", "status", "cause"),
    [
        (Ending("19", detail="before writing exit_status"), TI.ERROR, Cause.NODE_FAILURE),
        (Ending("25", detail="rescheduling"), TI.ERROR, Cause.REQUEUED),
        (Ending("28", detail="changing into working directory"), TI.ERROR, Cause.COMMAND_NOT_STARTED),
        (Ending("37", signal=9), TI.RESOURCE_ERROR, None),
        (Ending("99", detail="new"), TI.UNKNOWN_ERROR, Cause.WORKER_LOST),
        (Ending("CANCELLED"), TI.ERROR, Cause.KILLED),
    ],
)
def test_rarer_endings(ending, status, cause):
    assert verdict(ending)[:2] == (status, cause)


def test_an_answer_without_jobs_is_one():
    assert parsing.accounted("OWNER  WALLCLOCK\n====\n") == parsing.accounted("") == []


def test_why_jobs_are_in_error_state():
    text = (
        "====\njob_number:                 25\n"
        "error reason          1:      11/30/2026 18:33:58 [0:26155]: error: can't chdir to /nosuch: No such file\n"
        "job_number:                 26\nscheduling info:            none\n"
    )
    assert parsing.error_reasons(text) == {"25": "error: can't chdir to /nosuch: No such file"}


def test_a_queue_has_limits_unless_it_says_infinity():
    text = "qname   long.q\nslots   16,[n1=8]\npe_list smp mpi\nh_rt    24:00:00\nh_vmem  INFINITY\n"
    text += "qtype   BATCH \\\n  INTERACTIVE\n"
    found = parsing.settings(text)
    assert found["qtype"] == "BATCH INTERACTIVE"
    assert discovery.parameters_of(found) == {
        "max_cores": 16, "max_runtime": 86400.0, "default_cores": 1, "default_runtime": 86400.0,
        "parallel_environments": ["smp", "mpi"],
    }  # fmt: skip


@st.composite
def damaged(draw, text):
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 200)))
    return text[:start] + draw(st.text(max_size=20)) + text[draw(st.sampled_from([start, end])) :]


@settings(max_examples=60)
@given(listed=damaged(QSTAT.read_text()), accounted=damaged(QACCT.read_text()))
def test_a_damaged_answer_gives_values_or_is_refused(listed, accounted):
    try:
        view = View(view_of(1.0, parsing.listed(listed), parsing.accounted(accounted)), commands.FORM)
    except ClusterUnavailable:
        return
    for ending in view.ended.values():
        verdict(ending)
