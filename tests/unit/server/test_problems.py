"""Every exception has an HTTP status, and no error looks like success."""

import inspect

import pytest

from jobmon.core import exceptions
from jobmon.core.exceptions import (
    AttemptOver,
    AttemptUnknown,
    InvalidStateTransition,
    ServerUnavailable,
    StaleRun,
    WorkflowAlreadyComplete,
)
from jobmon.server.problems import InvalidValue, Malformed, NotFound, TooLarge, Unauthorized, problem_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotFound.of("task", 7), 404, "NotFound"),
        (Malformed("x"), 400, "ValidationError"),
        (InvalidValue("x"), 422, "ValidationError"),
        (TooLarge("x"), 413, "InvalidRequest"),
        (Unauthorized(), 401, "Unauthorized"),
        (StaleRun(), 409, "StaleRun"),
        (AttemptOver(), 409, "AttemptOver"),
        (AttemptUnknown(), 404, "AttemptUnknown"),
        (WorkflowAlreadyComplete(), 409, "WorkflowAlreadyComplete"),
        (InvalidStateTransition("x"), 409, "InvalidStateTransition"),
        (ServerUnavailable("x"), 503, "ServerUnavailable"),
        (OverflowError("x"), 422, "ValidationError"),
        (ValueError("x"), 500, "InternalError"),
        (KeyError("x"), 500, "InternalError"),
    ],
)
def test_status_and_kind(error, status, kind):
    found, problem = problem_of(error)
    assert (found, problem.kind) == (status, kind)
    assert str(error) in problem.message


def test_no_exception_of_ours_is_answered_with_success():
    kinds = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass)]
    assert all(problem_of(kind("x"))[0] >= 400 for kind in kinds)
