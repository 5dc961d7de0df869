"""Map exceptions to responses: each has one HTTP status and one `Problem`."""

from __future__ import annotations

from typing import Any, Final

from jobmon.core import exceptions
from jobmon.core.wire.server import Problem
from jobmon.server.database import first_line, is_value_refused, meaning, refers_to_nothing
from jobmon.server.login import LoginRefused
from jobmon.server.oidc import ProviderFailed, ProviderUnavailable
from jobmon.server.roles import UntrustedProxy
from jobmon.server.transaction import Deposed


class NotFound(exceptions.InvalidRequest):
    """There is nothing with this id."""

    @classmethod
    def of(cls, what: str, identity: object) -> NotFound:
        """Return the error for a kind of object and an ID."""
        return cls(f"There is no {what} {identity}.")


class Malformed(exceptions.InvalidRequest):
    """The request is no JSON."""


class InvalidValue(exceptions.InvalidRequest):
    """A value in the request is wrong."""


def require_at_most(most: int, count: int, what: str) -> None:
    """Check the number of things in a request.

    Raises:
        InvalidValue: there are more.
    """
    if count > most:
        raise InvalidValue(f"{what}: at most {most} in one request.")


class TooLarge(exceptions.InvalidRequest):
    """The request is larger than the server takes."""


class Unauthorized(exceptions.InvalidRequest):
    """This server wants a token, and takes none that was shown."""


class Forbidden(exceptions.InvalidRequest):
    """The credential of the request does not allow this."""


class ForeignOrigin(exceptions.InvalidRequest):
    """A web page from elsewhere sent this."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"Requests from the web page at {origin} are rejected: it does not belong to this server.")


class NotJson(exceptions.InvalidRequest):
    """A request whose body is something else than JSON."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"The body has content type {kind}; send application/json.")


class Misdirected(exceptions.InvalidRequest):
    """This server has no token and answers only to http://127.0.0.1 or localhost: a proxy must name that as Host."""


#: The first class that matches decides. A kind is given where it is not the name of a class in `core.exceptions`.
_STATUSES: Final[tuple[tuple[type[Exception], int, str | None], ...]] = (
    (exceptions.AttemptUnknown, 404, None),
    (NotFound, 404, "NotFound"),
    (Malformed, 400, "ValidationError"),
    (UntrustedProxy, 400, "Unauthorized"),
    (InvalidValue, 422, "ValidationError"),
    (TooLarge, 413, "InvalidRequest"),
    (Unauthorized, 401, "Unauthorized"),
    (Forbidden, 403, "Forbidden"),
    (LoginRefused, 403, "Forbidden"),
    (ProviderFailed, 502, "ServerUnavailable"),
    (ProviderUnavailable, 503, "ServerUnavailable"),
    (ForeignOrigin, 403, "Forbidden"),
    (NotJson, 415, "InvalidRequest"),
    (Misdirected, 421, "InvalidRequest"),
    (Deposed, 503, "ServerUnavailable"),
    (exceptions.ServerUnavailable, 503, None),
    (exceptions.StaleRun, 409, None),
    (exceptions.AttemptOver, 409, None),
    (exceptions.InvalidRequest, 409, None),
    (exceptions.TransitionError, 409, None),
    (exceptions.WorkflowRunStateError, 409, None),
    (exceptions.WorkflowAlreadyExists, 409, None),
    (exceptions.WorkflowVersionConflict, 409, None),
    (exceptions.WorkflowAlreadyComplete, 409, None),
    (exceptions.WorkflowNotResumable, 409, None),
    (exceptions.EmptyWorkflowError, 409, None),
    (exceptions.DuplicateNodeArgsError, 409, None),
    (OverflowError, 422, "ValidationError"),  # an ID of more than 64 bits
    (UnicodeEncodeError, 422, "ValidationError"),  # half a surrogate pair
)


def problem_of(error: Exception) -> tuple[int, Problem]:
    """Return status and body of the response to an exception. An exception that is not in the table is a bug: 500."""
    details: dict[str, Any] = dict(error.details) if isinstance(error, exceptions.JobmonError) else {}
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            return status, Problem(kind=name or type(error).__name__, message=str(error), details=details)
    if refers_to_nothing(error):
        return 422, Problem(kind="ValidationError", message="An ID in the request refers to nothing that is recorded.")
    if is_value_refused(error):
        return 422, Problem(kind="ValidationError", message=f"The database rejects a value: {first_line(error)}.")
    if said := meaning(error):
        return 503, Problem(kind="ServerUnavailable", message=said)
    message = f"The server failed: {type(error).__name__}: {error}. See its log for details."
    return 500, Problem(kind="InternalError", message=message, details=details)
