"""Workers whose cluster kills them but not their command."""

import _signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobmon.core.retry import NO_PYTHON_EXIT_CODES
from jobmon.plugins.batch import submission
from jobmon.worker_node import guarding, start

GUARDED = {guarding.VARIABLE: "1"}


def test_plugins_and_workers_agree():
    assert guarding.VARIABLE == submission.GUARDS_VARIABLE
    assert guarding.EXIT_NOTIFIED == submission.EXIT_NOTIFIED


def test_a_job_script_says_whether_the_worker_must_guard():
    made = submission.Submission("t", submission.Mark("jm-1-2-3", 0, 1), "worker", "/logs/out")
    for must_guard in (True, False):
        variables = submission.JobVariables(job="${J}", array="${J}", step="S", must_guard=must_guard)
        script = submission.job_script(made, variables, form=None)
        assert (f"export {guarding.VARIABLE}=1" in script) is must_guard


@pytest.mark.parametrize(("asked", "left"), [(3600.0, 3588.0), (12.0, 6.0), (None, None), ("unlimited", None)])
def test_a_command_ends_before_the_time_of_its_job_is_over(asked, left):
    assert guarding.runtime(GUARDED, {"runtime": asked}, 10.0) == left
    assert guarding.runtime({}, {"runtime": asked}, 10.0) is None


def test_a_notification_is_a_request_to_end_only_where_the_worker_must_guard():
    assert guarding.signals({}) == (_signal.SIGTERM, _signal.SIGINT)
    notified = set(guarding.signals(GUARDED)) - set(guarding.signals({}))
    assert {guarding.passed_on(one) for one in notified} == {_signal.SIGTERM}
    assert guarding.passed_on(_signal.SIGINT) == _signal.SIGINT


def test_a_python_that_is_too_old_says_so_and_ends_as_a_shell_without_a_command(tmp_path):
    text = Path(start.__file__).read_text(encoding="utf-8")
    path = tmp_path / "start.py"
    path.write_text(text.replace("PYTHON_MIN = (3, 11)", "PYTHON_MIN = (4, 0)"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-S", path],
        env={"JOBMON_DISTRIBUTOR_ID": "7_1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in NO_PYTHON_EXIT_CODES
    version = ".".join(map(str, sys.version_info[:2]))
    assert done.stderr == f"jobmon worker 7_1: this is Python {version}; Jobmon needs 4.0\n"
    lowest = ".".join(map(str, start.PYTHON_MIN))
    assert f'requires-python = ">={lowest}"' in (Path(__file__).parents[3] / "pyproject.toml").read_text()
