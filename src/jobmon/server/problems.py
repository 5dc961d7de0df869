"""How the server refuses: every exception has one HTTP status and one `Problem`."""

from __future__ import annotations

from typing import Any, Final

from jobmon.core import exceptions
from jobmon.core.wire.server import Problem


class NotFound(exceptions.InvalidRequest):
    """There is nothing with this id."""

    @classmethod
    def of(cls, what: str, identity: object) -> NotFound:
        """Name what was looked for."""
        return cls(f"There is no {what} {identity}.")


class Malformed(exceptions.InvalidRequest):
    """The request is no JSON."""


class InvalidValue(exceptions.InvalidRequest):
    """A value in the request is wrong."""


class TooLarge(exceptions.InvalidRequest):
    """The request is larger than the server takes."""


class Unauthorized(exceptions.InvalidRequest):
    """This server wants a token: Authorization: Bearer <token>."""


class Misdirected(exceptions.InvalidRequest):
    """This server has no token and answers only to http://127.0.0.1 or localhost: a proxy must name that as Host."""


#: The first class that fits decides. A kind that is not the name of a class in `core.exceptions` is given.
_STATUSES: Final[tuple[tuple[type[Exception], int, str | None], ...]] = (
    (NotFound, 404, "NotFound"),
    (Malformed, 400, "ValidationError"),
    (InvalidValue, 422, "ValidationError"),
    (TooLarge, 413, "InvalidRequest"),
    (Unauthorized, 401, "Unauthorized"),
    (Misdirected, 421, "InvalidRequest"),
    (exceptions.ServerUnavailable, 503, None),
    (exceptions.StaleRun, 409, None),
    (exceptions.InvalidRequest, 409, None),
    (exceptions.TransitionError, 409, None),
    (exceptions.WorkflowRunStateError, 409, None),
    (exceptions.WorkflowAlreadyExists, 409, None),
    (exceptions.WorkflowAlreadyComplete, 409, None),
    (exceptions.WorkflowNotResumable, 409, None),
    (exceptions.EmptyWorkflowError, 409, None),
    (OverflowError, 422, "ValidationError"),  # an id of more than 64 bits
    (UnicodeEncodeError, 422, "ValidationError"),  # half a surrogate pair
)


#: What a database says when it cannot write for a while -> what that means. Whoever asked tries again.
_PASSING: Final = {
    "database or disk is full": "The disk that holds the server's database is full. Free some space on it.",
    "disk I/O error": "The disk that holds the server's database does not work.",
    "readonly database": "The server's database cannot be written to. Check the rights of its folder.",
    "unable to open database file": "The server's database cannot be opened. Check its folder.",
}


def _passing_problem(error: Exception) -> Problem | None:
    text = str(error)
    meaning = next((meaning for sign, meaning in _PASSING.items() if sign in text), None)
    return None if meaning is None else Problem(kind="ServerUnavailable", message=meaning)


def problem_of(error: Exception, details: dict[str, Any] | None = None) -> tuple[int, Problem]:
    """Return status and body of the answer for an exception. What is not in the table is our own fault: 500."""
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            return status, Problem(kind=name or type(error).__name__, message=str(error), details=details or {})
    if passing := _passing_problem(error):
        return 503, passing
    message = f"The server failed: {type(error).__name__}: {error}. Its log says more."
    return 500, Problem(kind="InternalError", message=message, details=details or {})
