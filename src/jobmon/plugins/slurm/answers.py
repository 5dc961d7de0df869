"""Interpret the error messages of `sbatch`. Pure: a table of texts."""

from __future__ import annotations

import re
from typing import Final

from jobmon.plugins.batch.answers import Answer, Texts

#: Slurm's message when it accepts no more jobs at all at the moment.
_FULL: Final = "temporarily unable to accept job"
#: Its message when a limit of user, account or QOS rejects a job. The limit is named on a separate line, which older
#: versions omit. Waiting helps only if the number of jobs is limited.
_POLICY: Final = "violates accounting/qos policy"
_LIMIT: Final = re.compile(r"\b(?:Assoc|QOS|Grp|Max)\w*Limit\b")
#: The message of a site's own check of jobs (job_submit plug-in); the site's text precedes it.
_OF_THE_SITE: Final = "unspecified error"
#: Slurm's messages when it was unreachable or too busy, so that the outcome of the request is unknown.
UNREACHED: Final = (
    "unable to contact slurm",
    "socket timed out",
    "connection refused",
    "connection reset",
    "connection timed out",
    "transport endpoint",
    "zero bytes were transmitted",
    "unexpected message received",
    "backup controller in standby",
    "slurm_persist_conn_open",
    "problem talking to the database",
    "failed to open persistent connection",
    "munge encode failed",
    "invalid authentication credential",
    "protocol authentication error",
    "could not resolve hostname",
    "error resolving",
    "communication connection failure",
    "communications connection failure",
    "resource temporarily unavailable",
    "insufficient credentials",
    "cannot allocate memory",
)
#: Errors that persist on repetition: the request itself is invalid, or not allowed for this user.
PERMANENT: Final = (
    # the named object does not exist, or is not available to this user
    "invalid account",
    "invalid partition",
    "no partition specified or system default partition",
    "invalid qos",
    "invalid reservation",
    "requested reservation is invalid",
    "invalid wckey",
    "invalid license",
    "invalid cluster name",
    "invalid node name",
    "not permitted to use this partition",
    "access/permission denied",
    "access denied",
    "job request does not match any supported policy",
    # no node matches
    "requested node configuration is not available",
    "invalid feature",
    "invalid constraint",
    "invalid generic resource",
    "invalid gres",
    "invalid tres",
    "invalid gpu",
    "requested gres option unsupported",
    "memory specification can not be satisfied",
    "cpu count per node can not be satisfied",
    "cpu count specification invalid",
    "node count specification invalid",
    "more processors requested than permitted",
    "unable to satisfy cpu bind request",
    "requested topology configuration is not available",
    "requested time limit is invalid",
    "time limit specification required",
    "invalid time",
    # options that are invalid, alone or in combination
    "unrecognized option",
    "invalid option",
    "ambiguous",
    "requires an argument",
    "doesn't allow an argument",
    "mutually exclusive",
    "is not allowed",
    "not supported",
    "invalid numeric value",
    "invalid value",
    "invalid --",
    "specification is invalid",
    "specification invalid",
    "invalid job array specification",
    "job array index too large",
    "job dependency problem",
    "invalid dependency",
    "invalid job credential",
    "pathname of a file, directory or other parameter too long",
    "script too large",
)


class SlurmTexts(Texts):
    """Slurm's texts, two of which depend on the rest of the message."""

    def answer_of(self, error_text: str) -> Answer:
        """Return the meaning of an error message of `sbatch`."""
        lines = self.lines_of(error_text.lower())
        whole, last = "\n".join(lines), lines[-1] if lines else ""
        if _FULL in whole:
            return Answer.FULL
        if _POLICY in whole:
            return Answer.FULL if _is_limit_on_number(error_text) else Answer.REJECTED
        if _OF_THE_SITE in last:
            return Answer.REJECTED if _is_said_by_site(lines) else self.known(whole)
        return super().answer_of(error_text)


TEXTS: Final = SlurmTexts(
    system="Slurm",
    full=(_FULL,),
    rejected=PERMANENT,
    unreached=UNREACHED,
    unclear=(_OF_THE_SITE,),
    over=("invalid job id", "already completing or completed"),
)


def _is_limit_on_number(error_text: str) -> bool:
    named = _LIMIT.findall(error_text)
    return not named or any("Submit" in name for name in named)


def _is_said_by_site(lines: list[str]) -> bool:
    """Return whether a text that is not one of Slurm's own errors precedes the last line."""
    own = (line for line in lines[:-1] if not line.startswith("sbatch: warning:") and _OF_THE_SITE not in line)
    return any(not any(sign in line for sign in UNREACHED) for line in own)
