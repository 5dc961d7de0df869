"""The example plug-ins: their requests, recorded responses, and job scripts."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.batch import Answer, Mark, Submission
from jobmon.plugins.batch.submission import job_script
from jobmon.plugins.batch.view import Endings, View, view_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "plugins"
TI = TaskInstanceStatus


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["openpbs", "lsf"])
def example(request, tmp_path):
    kind = loaded(request.param).get_cluster_distributor_class()
    return kind(request.param, workflow_id=1, data_folder=tmp_path, environment={"PATH": str(tmp_path)})


def submission(length=1, first=0, output="/data/jobs.log", command="true", **requested):
    return Submission("align", Mark("jm-ab12-3-4", first, length), command, output, requested)


ASKED = {"queue": "q", "cores": 2, "memory": 0.5, "runtime": 90.0, "project": "p"}


def test_a_request_in_the_schedulers_units(example):
    words = example.submit_arguments(submission(length=4, first=8, array_limit=2, **ASKED))
    assert words == {
        "openpbs": [
            "qsub", "-N", "align.jm-ab12-3-4-8+4", "-V", "-r", "n", "-j", "oe", "-o", "/dev/null", "-J", "0-3%2",
            "-q", "q", "-A", "p", "-l", "select=1:ncpus=2:mem=512mb", "-l", "walltime=90",
        ],
        "lsf": [
            "bsub", "-J", "align.jm-ab12-3-4-8+4[1-4]%2", "-rn", "-o", "/dev/null", "-n", "2", "-q", "q", "-P", "p",
            "-M", "512MB", "-W", "2", "-R", "span[hosts=1]",
        ],
    }[example.cluster_name]  # fmt: skip


IN_A_STEP = {
    "openpbs": {"PBS_JOBID": "1206[2].pbs", "PBS_ARRAY_INDEX": "2"},
    "lsf": {"LSB_JOBID": "1206", "LSB_JOBINDEX": "3"},
}


def test_the_job_script_says_the_id_and_the_step_and_keeps_what_is_written(example, tmp_path):
    output = tmp_path / "it's jobs.log"
    part = submission(3, first=10, output=str(output), command="sh -c 'echo $JOBMON_DISTRIBUTOR_ID $JOBMON_STEP'")
    script = job_script(part, example.variables, example.form, redirects_output=example.redirects_output)
    subprocess.run(["sh"], input=script, text=True, env=IN_A_STEP[example.cluster_name], check=True)
    identity, step = output.read_text().split()
    assert int(step) == 12
    assert part.mark.ids("1206", example.form)[12] == identity


ANSWERS = {
    "openpbs": ("1206[].pbs\n", "openpbs-qstat.json", range(1201, 1206), ["1206[1]", "1206[2]"]),
    "lsf": ("Job <1206> is submitted to queue <q>.\n", "lsf-bjobs.json", range(101, 106), ["106[1]", "106[2]"]),
}


def test_answers_have_their_meaning(example):
    submitted, recorded, ended, held = ANSWERS[example.cluster_name]
    assert example.submitted_id(submitted) == "1206"
    rows = example.listed((EXAMPLES / "recorded" / recorded).read_text())
    view = View(view_of(1.0, rows), example.form)
    assert [one.text for one in view.held] == held
    assert example.pending_reason(view.find(held[1]), "")
    endings = Endings(100, example.form)
    endings.add(view.ended)
    told = [example.verdict(endings.find(str(one)))[:2] for one in ended]
    assert told[:3] == [(TI.DONE, None), (TI.ERROR, Cause.EXIT_CODE), (TI.RESOURCE_ERROR, Cause.OUT_OF_TIME)]
    assert told[3] == (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY)
    assert told[4] == (TI.ERROR, {"openpbs": Cause.NODE_FAILURE, "lsf": Cause.SIGNAL}[example.cluster_name])


@pytest.mark.parametrize("answer", ["", "garbage", '{"RECORDS": [1], "Jobs": {"1": {}}}', "[]"])
def test_garbage_is_no_answer(example, answer):
    with pytest.raises(ClusterUnavailable, match="cannot be parsed"):
        example.submitted_id(answer)
    with pytest.raises(ClusterUnavailable, match="cannot be parsed"):
        example.listed(answer)


@pytest.mark.parametrize(
    ("name", "error_text", "expected"),
    [
        ("openpbs", "qsub: Unknown queue", Answer.REJECTED),
        ("openpbs", "qsub: would exceed limit on resource ncpus for user", Answer.FULL),
        ("openpbs", "Connection refused\nqsub: cannot connect to server pbs (errno=111)", Answer.UNREACHED),
        ("openpbs", "qsub: Post job file processing error", Answer.UNKNOWN),
        ("lsf", "q: No such queue. Job not submitted.", Answer.REJECTED),
        ("lsf", "User's job slot limit reached. Job not submitted.", Answer.FULL),
        ("lsf", "LSF is down. Please wait ...", Answer.UNREACHED),
        ("lsf", "Something new. Job not submitted.", Answer.UNKNOWN),
    ],
)
def test_error_texts_have_their_meaning(name, error_text, expected):
    assert loaded(name).get_cluster_distributor_class().texts.answer_of(error_text) is expected


def test_what_they_ask_for_is_killed_in_one_call(example):
    assert len(example.kill_arguments(["7", "12[1]", "12[2]"])) == 1
