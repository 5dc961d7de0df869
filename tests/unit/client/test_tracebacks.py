"""An error that Jobmon raises deliberately is shown as one message."""

from __future__ import annotations

import sys

import pytest

from jobmon.client import tracebacks
from jobmon.client.defaults import checked_max_attempts
from jobmon.client.status import add_task_attributes
from jobmon.client.tool import Tool
from jobmon.core.exceptions import WorkflowAlreadyExists
from jobmon.core.texts import shortened


@pytest.fixture(autouse=True)
def hook(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error[1]))
    monkeypatch.delenv(tracebacks.VARIABLE, raising=False)
    return seen


def _raised(error):
    try:
        raise error
    except type(error) as caught:
        return type(caught), caught, caught.__traceback__


def test_an_error_of_jobmon_is_one_line_that_names_the_line_of_the_script(hook, capsys):
    tracebacks.install()
    tracebacks.install()
    sys.excepthook(*_raised(WorkflowAlreadyExists("Workflow 1 was already started.")))
    said = capsys.readouterr().err
    assert said.startswith("WorkflowAlreadyExists: Workflow 1 was already started. (test_tracebacks.py, line ")
    assert said.count("\n") == 1
    assert hook == []


def test_the_line_of_the_script_is_not_appended_to_a_command(hook, capsys):
    tracebacks.install()
    sys.excepthook(*_raised(WorkflowAlreadyExists("Changed:\n  look first  jobmon workflow plan words.py")))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["WorkflowAlreadyExists: Changed:", "  look first  jobmon workflow plan words.py"]
    assert lines[2].startswith("(test_tracebacks.py, line ")


def test_other_errors_keep_their_traceback(hook):
    tracebacks.install()
    error = _raised(KeyError("x"))
    sys.excepthook(*error)
    assert hook == [error[1]]


def test_the_traceback_can_be_had(hook, monkeypatch):
    monkeypatch.setenv(tracebacks.VARIABLE, "1")
    tracebacks.install()
    error = _raised(WorkflowAlreadyExists("x"))
    sys.excepthook(*error)
    assert hook == [error[1]]


def _caught(call):
    try:
        call()
    except Exception as error:
        return type(error), error, error.__traceback__
    pytest.fail("nothing was raised")


def test_an_invalid_argument_that_jobmon_rejects_is_one_line(hook, capsys):
    tracebacks.install()
    template = Tool(name="t").get_task_template
    sys.excepthook(*_caught(lambda: template("a", "echo {b", node_args=["b"])))
    said = capsys.readouterr().err
    assert said.startswith("ValueError: command_template 'echo {b' cannot be read: ")
    assert (said.count("\n"), hook) == (1, [])


def test_a_call_in_the_wrong_place_is_one_line(hook, capsys, monkeypatch):
    monkeypatch.delenv("JOBMON_TASK_ID", raising=False)
    tracebacks.install()
    sys.excepthook(*_caught(lambda: add_task_attributes(["a"])))
    said = capsys.readouterr().err
    assert said.startswith("RuntimeError: add_task_attributes() records attributes of the task that calls it")
    assert (said.count("\n"), hook) == (1, [])


def test_errors_that_jobmon_or_the_script_did_not_mean_to_raise_keep_their_traceback(hook):
    tracebacks.install()

    def of_script():
        raise ValueError("mine")

    def of_python():
        raise RuntimeError("mine")

    errors = [
        _caught(of_script),
        _caught(of_python),
        _caught(checked_max_attempts),
        _caught(lambda: shortened("x", "y")),
    ]
    for error in errors:
        sys.excepthook(*error)
    assert hook == [error[1] for error in errors]
