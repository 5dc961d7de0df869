"""`shell`, `stdout`, `stderr` and `env` are checked when they are declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobmon.client.api import Tool
from jobmon.client.command_settings import PATH_BYTES_MAX, VARIABLE_BYTES_MAX
from jobmon.core.exceptions import InvalidResources


@pytest.fixture
def tool():
    return Tool("census")


def _template(tool, resources, **kwargs):
    return tool.get_task_template("step", "echo {a}", ["a"], default_compute_resources=resources, **kwargs)


@pytest.mark.parametrize("shell", ["/no/such/shell", "no-such-shell -e", "bash '", "", 3, ["sh", 3]])
def test_a_shell_that_cannot_run_is_refused_at_every_level(tool, shell):
    resources = {"shell": shell}
    template = tool.get_task_template("other", "echo {a}", ["a"])
    task = template.create_task(a=1)
    for declare in (
        lambda: _template(tool, resources),
        lambda: tool.set_default_compute_resources_from_dict("", resources),
        lambda: tool.update_default_compute_resources("multiprocess", **resources),
        lambda: tool.create_workflow("w", default_compute_resources_set={"sequential": resources}),
        lambda: template.create_task(a=2, compute_resources=resources),
        lambda: template.create_tasks(a=[3, 4], compute_resources=resources),
        lambda: task.update_compute_resources(**resources),
    ):
        with pytest.raises(InvalidResources, match=r"shell .* cannot run commands"):
            declare()


@pytest.mark.parametrize("shell", ["sh", "/bin/sh -eu", ["/bin/sh", "-c"]])
def test_a_shell_that_can_run_is_taken(tool, shell):
    assert _template(tool, {"shell": shell}).create_task(a=1).compute_resources == {"shell": shell}


def test_a_shell_of_a_cluster_need_not_be_here(tool):
    resources = {"shell": "/no/such/shell"}
    _template(tool, resources, default_cluster_name="slurm").create_task(a=1, compute_resources=resources)
    template = tool.get_task_template("other", "echo {a}", ["a"])
    template.create_task(a=1, cluster_name="slurm", compute_resources=resources)
    tool.set_default_cluster_name("slurm")
    template.create_task(a=2, compute_resources=resources)
    with pytest.raises(InvalidResources, match="a quotation mark is not closed"):
        template.create_task(a=3, compute_resources={"shell": "bash '"})


def test_paths_of_output_are_absolute(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "run.d").mkdir()

    def recorded(value):
        return _template(tool, {"stdout": value}).create_task(a=1).compute_resources["stdout"]

    assert recorded("~/x.log") == "/home/me/x.log"
    assert recorded("logs") == f"{tmp_path}/logs"
    assert recorded("logs/") == f"{tmp_path}/logs/"
    assert recorded(Path("all.log")) == f"{tmp_path}/all.log"
    assert recorded("run.d") == f"{tmp_path}/run.d/", "an existing folder is a folder, whatever its name"
    assert recorded("/dev/null") == "/dev/null"


@pytest.mark.parametrize("value", ["", " ", 3, "a\0b", "~nobody-of-this-name/x.log", ["x"]])
@pytest.mark.parametrize("key", ["stdout", "stderr"])
def test_a_path_that_cannot_be_used_is_refused(tool, key, value):
    with pytest.raises(InvalidResources, match=key):
        _template(tool, {key: value})


def test_a_file_without_an_extension_is_refused(tool, tmp_path):
    (tmp_path / "log").touch()
    with pytest.raises(InvalidResources, match=r"existing file without an extension\. .*log\.log"):
        _template(tool, {"stdout": str(tmp_path / "log")})


def test_what_the_system_would_refuse_at_the_start_of_each_attempt_is_refused_here(tool):
    longest = "x" * (VARIABLE_BYTES_MAX - len("A="))
    _template(tool, {"env": {"A": longest}, "stdout": "/x" * (PATH_BYTES_MAX // 2)})
    with pytest.raises(InvalidResources, match="env: 'A' and its value have more than the 131,071 bytes"):
        _template(tool, {"env": {"A": longest + "x"}})
    with pytest.raises(InvalidResources, match=r"stderr: the path '/x/x.*has more than 3,839 bytes"):
        _template(tool, {"stderr": "/x" * (PATH_BYTES_MAX // 2 + 1)})


@pytest.mark.parametrize("value", ["PATH=/bin", ["A"], {"A=B": "1"}, {"": "1"}, {"A": None}, {"A": ["x"]}, {"A": "\0"}])
def test_an_environment_that_cannot_be_set_is_refused(tool, value):
    with pytest.raises(InvalidResources, match="env"):
        _template(tool, {"env": value})
    _template(tool, {"env": {"THREADS": 4, "MODE": "fast"}})
