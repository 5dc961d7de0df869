"""A Slurm cluster as seen by Jobmon's distributor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from jobmon.plugins.batch import BatchDistributor, user_name
from jobmon.plugins.slurm import commands, parsing, view
from jobmon.plugins.slurm.answers import TEXTS
from jobmon.plugins.slurm.discovery import SHOW_CONFIGURATION
from jobmon.plugins.slurm.endings import verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobmon.plugins.batch import Ending, ListedJob, Submission, Verdict

#: Slurm's own default, used if the limit cannot be read.
ARRAY_SIZE_DEFAULT: Final = 1001


class SlurmDistributor(BatchDistributor):
    """Submit to the Slurm cluster of this host, as the current user.

    Args:
        cluster_name: the cluster's name in Jobmon.
        connection: see `BatchDistributor`; `slurm_conf`: path of a different `slurm.conf`.
    """

    texts = TEXTS
    variables = commands.VARIABLES
    form = commands.FORM
    output_file = "slurm-jobs.log"

    def __init__(
        self,
        cluster_name: str,
        *args: Any,
        connection: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        surroundings = dict(os.environ if environment is None else environment)
        if connection and connection.get("slurm_conf"):
            surroundings["SLURM_CONF"] = str(connection["slurm_conf"])
        super().__init__(cluster_name, *args, connection=connection, environment=surroundings, **kwargs)

    def submit_arguments(self, submission: Submission) -> list[str]:
        """Return the `sbatch` command."""
        return commands.sbatch_arguments(submission)

    def submitted_id(self, output: str) -> str:
        """Parse the output of `sbatch --parsable`."""
        return parsing.submitted_id(output)

    def array_size(self) -> int:
        """Return the maximum number of steps in an array: Slurm's MaxArraySize is one more than the highest index."""
        word = parsing.configuration(self.runner.ask(SHOW_CONFIGURATION)).get("MaxArraySize", "")
        return int(word) if word.isdecimal() else ARRAY_SIZE_DEFAULT

    def list_arguments(self) -> list[str]:
        """Return the `squeue` command."""
        return commands.squeue_arguments(os.getuid())

    def listed(self, output: str) -> list[ListedJob]:
        """Parse the output of `squeue`."""
        return view.listed(parsing.queue_rows(output))

    def kill_arguments(self, distributor_ids: Sequence[str]) -> list[list[str]]:
        """Return the `scancel` commands."""
        return commands.scancel_arguments(distributor_ids)

    def account_since_arguments(self, since: float) -> list[str]:
        """Return the `sacct` command."""
        return commands.sacct_arguments(os.getuid(), since)

    def account_arguments(self, bases: Collection[str]) -> list[list[str]]:
        """Return the `sacct` commands for these jobs."""
        return commands.sacct_of_jobs_arguments(bases)

    def accounted(self, output: str) -> list[ListedJob]:
        """Parse the output of `sacct`."""
        return view.accounted(parsing.accounting_rows(output))

    def verdict(self, ending: Ending) -> Verdict:
        """Return the meaning of a Slurm job state."""
        return verdict(ending, user_name, str(os.getuid()))

    def never_starts(self, held: ListedJob) -> str | None:
        """Return why a pending job will never start."""
        return view.never_starts(held)

    def may_pass(self, held: ListedJob) -> bool:
        """Return whether the job may start after all."""
        return view.may_pass(held)

    def pending_reason(self, held: ListedJob, moment: str) -> str:
        """Return why a job waits, in Slurm's words and in plain words."""
        return view.pending_reason(held, moment)

    def tool_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which tools print machine-readable output."""
        return commands.tool_environment(environment)

    def job_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Remove the variables by which an outer job would affect Slurm's tools."""
        return commands.job_environment(environment)
