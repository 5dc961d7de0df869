"""Decide whether a location is the reason why a command could not be started: then it waits and is not charged.

The working folder and the log folder of a workflow belong to no task. A failure of something that the task itself
requested (an output folder, a shell) counts as the task's.
"""

from __future__ import annotations

import errno

#: How long a worker waits for its location unless the environment sets another time, and the intervals between retries.
RETRIED_SECONDS = 600.0
PAUSE_SECONDS_FIRST = 1.0
PAUSE_SECONDS_MAX = 60.0
RETRIED_VARIABLE = "JOBMON__DISTRIBUTOR__SUBMISSION_RETRY_TIMEOUT"
DIRECTORY, INPUT, OUTPUT, COMMAND = "directory", "input", "output", "command"
#: Not a step: the command may have been started, but the plug-in that ran it knows nothing more of it.
LOST = "lost"
#: Errors that may be transient whatever was being opened: a resource is exhausted, or a file system is unreachable.
PASSING_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENFILE, errno.EMFILE, errno.ENOMEM, errno.EAGAIN),
        *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ECONNREFUSED, errno.EINTR),
        *(errno.EBUSY, errno.ETXTBSY, errno.EREMOTEIO, errno.ENODEV),
    }
)
#: Errors of an invalid name, which waiting does not fix.
NAME_ERRORS = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


def is_of_location(step: str, number: int | None, path: str, log_folder: str) -> bool:
    """Return whether the location, and not the task, is the reason why a command could not be started.

    Args:
        step: the step that failed: DIRECTORY, INPUT, OUTPUT or COMMAND.
        number: the error number of the system; None: there is none.
        path: path of the folder, file or program.
        log_folder: the log folder of the workflow.
    """
    if number is None or number in NAME_ERRORS:
        return False
    if number in PASSING_ERRORS or step == DIRECTORY:
        return True
    return step == OUTPUT and path.startswith(f"{log_folder}/")
