"""The Slurm adapter with tools that reject, hang, print nonsense or are missing: small programs instead of Slurm's."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobmon.core.constants import Cause
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, PluginError
from jobmon.plugins import slurm
from jobmon.plugins.batch import BatchWorkerNode, OutcomeUnknown, Refused, ToolRunner
from jobmon.plugins.slurm import SlurmDistributor
from jobmon.plugins.slurm.answers import TEXTS

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def tools(tmp_path):
    """Make a tool that runs a line of shell; its arguments and its input are kept."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, line):
        path = folder / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{folder}/{name}.calls"\n{line}\n')
        path.chmod(0o755)

    make.folder = folder
    make.calls = lambda name: (folder / f"{name}.calls").read_text().splitlines()
    make("squeue", f"cat {RECORDED}/squeue.txt")
    make("sacct", f"cat {RECORDED}/sacct.txt")
    make("sbatch", "cat >/dev/null; echo 77")
    make("scontrol", f"cat {RECORDED}/config.txt")
    make("scancel", "true")
    return make


@pytest.fixture
def adapter(tools, tmp_path):
    return SlurmDistributor("slurm", data_folder=tmp_path, environment={"PATH": f"{tools.folder}:{os.environ['PATH']}"})


def refusing(words, code=1):
    return f"cat >/dev/null; echo 'sbatch: error: {words}' >&2; exit {code}"


POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, users size and/or time limits)"
)


def test_a_refusal_is_told_in_slurms_words_once_and_not_tried_again(tools, adapter):
    tools("sbatch", refusing("invalid partition specified: x"))
    with pytest.raises(Refused, match=r"^Slurm refused: invalid partition specified: x$"):
        adapter.submit_to_batch_distributor("true", "a", {})
    assert len(tools.calls("sbatch")) == 1


@pytest.mark.parametrize("reason", ["AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit"])
def test_a_limit_on_the_number_of_jobs_is_waited_for(tools, adapter, reason):
    tools("sbatch", f"cat >/dev/null; echo 'sbatch: error: {reason}' >&2; {refusing(POLICY)}")
    with pytest.raises(ClusterFull, match=reason):
        adapter.submit_to_batch_distributor("true", "a", {})


def test_a_limit_on_the_size_of_a_job_is_a_refusal(tools, adapter):
    tools("sbatch", f"cat >/dev/null; echo 'sbatch: error: QOSMaxCpuPerJobLimit' >&2; {refusing(POLICY)}")
    with pytest.raises(Refused, match="QOSMaxCpuPerJobLimit"):
        adapter.submit_to_batch_distributor("true", "a", {})


def test_an_array_for_which_there_is_no_room_is_halved_a_few_times_and_then_waits(tools, adapter):
    tools("sbatch", f"cat >/dev/null; {refusing(POLICY)}")
    with pytest.raises(ClusterFull):
        adapter.submit_array_to_batch_distributor("true", "a", {}, 10_000)
    assert len(tools.calls("sbatch")) == 5
    with pytest.raises(ClusterFull):
        adapter.submit_array_to_batch_distributor("true", "a", {}, 10_000)
    assert "--array=0-311" in tools.calls("sbatch")[5]


def test_the_part_of_an_array_that_was_taken_is_told(tools, adapter):
    room = 'case "$*" in *array=0-4*) cat >/dev/null; [ -e {0} ] || {{ touch {0}; echo 77; exit 0; }};; esac; {1}'
    tools("sbatch", room.format(tools.folder / "taken", refusing(POLICY)))
    assert adapter.submit_array_to_batch_distributor("true", "a", {}, 10) == {step: f"77_{step}" for step in range(5)}


def test_a_submission_without_an_answer_is_not_tried_again_for_it_may_have_succeeded(tools, adapter):
    tools("sbatch", refusing("Batch job submission failed: Socket timed out on send/recv operation"))
    with pytest.raises(ClusterUnavailable, match="Socket timed out") as caught:
        adapter.submit_to_batch_distributor("true", "a", {})
    assert not isinstance(caught.value, ClusterFull)
    assert len(tools.calls("sbatch")) == 1


def test_a_question_to_a_busy_controller_is_asked_again(tools, adapter):
    once = f"[ -e {tools.folder}/asked ] && exec cat {RECORDED}/squeue.txt; touch {tools.folder}/asked"
    tools("squeue", f"{once}; echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1")
    assert adapter.look(0.0)["held"]
    assert adapter.calls["squeue"] == 2


def test_a_tool_that_hangs_is_ended(tools):
    tools("squeue", "exec sleep 60")
    environment = {"PATH": f"{tools.folder}:{os.environ['PATH']}"}
    runner = ToolRunner(TEXTS, environment, environment, call_timeout=0.2, pause=0.01)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match=r"squeue did not respond within 0\.2 s"):
        runner.ask(["squeue"])
    assert time.monotonic() - began < 10


def test_whoever_leaves_waits_for_no_answer(tools, adapter):
    tools("squeue", "exec sleep 60")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(adapter.look, 0.0)
        while not (tools.folder / "squeue.calls").exists():
            time.sleep(0.01)
        adapter.stop()
        with pytest.raises(ClusterUnavailable):
            asked.result()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("answer", ["", "garbage", "JOBID", "<html>502</html>"])
def test_garbage_is_no_answer(tools, adapter, answer):
    tools("squeue", f"echo '{answer}'")
    with pytest.raises(ClusterUnavailable, match="cannot be parsed"):
        adapter.look(0.0)


def test_without_accounting_the_controllers_word_counts(tools, adapter):
    tools("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    adapter.show(adapter.look(0.0))
    found = adapter.get_remote_exits(["151", "154"])
    assert found["151"].exit_code == 7
    assert found["154"].cause is Cause.OUT_OF_MEMORY
    adapter.look(0.0)
    assert adapter.calls["sacct"] == 1


def test_while_accounting_is_away_a_failure_waits_for_its_usage_and_a_good_end_does_not(tools, adapter):
    tools("sacct", "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1")
    adapter.show(adapter.look(0.0))
    assert set(adapter.get_remote_exits(["154", "159_0"])) == {"159_0"}


def test_jobs_that_are_over_already_can_be_cancelled(tools, adapter):
    tools("scancel", "echo 'scancel: error: Kill job error on job id 9: Invalid job id specified' >&2; exit 1")
    adapter.terminate_task_instances(["9"])
    tools("scancel", "echo 'scancel: error: Kill job error on job id 9: Access/permission denied' >&2; exit 1")
    with pytest.raises(Refused, match="permission denied"):
        adapter.terminate_task_instances(["9"])


def test_a_job_is_known_by_what_its_script_says(tools, adapter):
    one = adapter.submit_to_batch_distributor("env", "a", {})
    assert one == "77"
    node = BatchWorkerNode({"JOBMON_DISTRIBUTOR_ID": "77_3", "JOBMON_STEP": "11"})
    assert (node.distributor_id, node.array_step_id) == ("77_3", 11)
    assert BatchWorkerNode({}).array_step_id is None


def test_nothing_of_the_server_stands_on_a_command_line(tools, tmp_path):
    secret = {"JOBMON_TOKEN": "s3cret", "JOBMON_SERVICE_URL": "http://10.1.2.3:4"}
    path = {"PATH": f"{tools.folder}:{os.environ['PATH']}"}
    adapter = SlurmDistributor("slurm", data_folder=tmp_path, environment={**path, **secret})
    tools("sbatch", f"cat >{tools.folder}/script; env >{tools.folder}/env; echo 77")
    adapter.submit_to_batch_distributor(adapter.build_worker_node_command(task_instance_id=5), "a", {})
    [line] = tools.calls("sbatch")
    assert "s3cret" not in line + (tools.folder / "script").read_text()
    assert "JOBMON_TOKEN=s3cret" in (tools.folder / "env").read_text()


def test_a_host_without_slurm_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="login node"):
        slurm.get_default_queues()
