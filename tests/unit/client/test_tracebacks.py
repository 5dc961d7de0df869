"""An error that Jobmon raises deliberately is shown as one message."""

from __future__ import annotations

import sys

import pytest

from jobmon.client import tracebacks
from jobmon.core.exceptions import WorkflowAlreadyExists


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
