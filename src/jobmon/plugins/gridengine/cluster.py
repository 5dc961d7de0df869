"""A Grid Engine cluster as seen by Jobmon's distributor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import JobmonError
from jobmon.plugins.batch import BatchDistributor, user_name
from jobmon.plugins.gridengine import commands, parsing
from jobmon.plugins.gridengine.answers import NOT_ACCOUNTED, TEXTS
from jobmon.plugins.gridengine.discovery import SHOW_CONFIGURATION
from jobmon.plugins.gridengine.endings import verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobmon.plugins.batch import Ending, ListedJob, Submission, Verdict

#: Grid Engine's own default.
ARRAY_SIZE_DEFAULT: Final = 75_000
#: Maximum number of jobs in error state whose reason is queried at once.
REASONS_MAX: Final = 20


class GridEngineDistributor(BatchDistributor):
    """Submit to the Grid Engine cluster of this host, as the current user.

    Args:
        cluster_name: the cluster's name in Jobmon.
        connection: see `BatchDistributor`; `memory_resource`, `runtime_resource`: names of the resources that limit
            memory (per slot) and time, by default `h_vmem` and `h_rt`; `parallel_environment`: the parallel
            environment of jobs with several cores, by default `smp`.
    """

    texts = TEXTS
    variables = commands.VARIABLES
    form = commands.FORM
    output_file = "gridengine-jobs.log"
    ask_again_seconds = 3.0
    #: Jobs deleted while they are pending leave no record.
    vanished_after_seconds = 10.0

    @property
    def _user(self) -> str:
        return user_name(str(os.getuid()))

    def submit_arguments(self, submission: Submission) -> list[str]:
        """Return the `qsub` command."""
        return commands.qsub_arguments(submission, self.connection)

    def submitted_id(self, output: str) -> str:
        """Parse the output of `qsub -terse`."""
        return parsing.submitted_id(output)

    def array_size(self) -> int:
        """Return the maximum number of tasks in an array."""
        word = parsing.settings(self.runner.ask(SHOW_CONFIGURATION)).get("max_aj_tasks", "")
        return int(word) or ARRAY_SIZE_DEFAULT if word.isdecimal() else ARRAY_SIZE_DEFAULT

    def list_arguments(self) -> list[str]:
        """Return the `qstat` command."""
        return commands.qstat_arguments(self._user)

    def listed(self, output: str) -> list[ListedJob]:
        """Parse the output of `qstat -xml`."""
        return parsing.listed(output)

    def kill_arguments(self, distributor_ids: Sequence[str]) -> list[list[str]]:
        """Return the `qdel` commands."""
        return commands.qdel_arguments(distributor_ids)

    def account_since_arguments(self, since: float) -> list[str]:
        """Return the `qacct` command."""
        return commands.qacct_arguments(self._user, since)

    def account_arguments(self, bases: Collection[str]) -> list[list[str]]:
        """Return the `qacct` commands for some of these jobs."""
        return commands.qacct_of_jobs_arguments(bases)

    def accounted(self, output: str) -> list[ListedJob]:
        """Parse the output of `qacct -j`."""
        return parsing.accounted(output)

    def is_known_no_more(self, error_text: str) -> bool:
        """Return whether `qacct` failed because a job that has not ended has no record."""
        return any(sign in error_text for sign in NOT_ACCOUNTED)

    def verdict(self, ending: Ending) -> Verdict:
        """Return the meaning of the codes of `qacct`."""
        return verdict(ending)

    def never_starts(self, held: ListedJob) -> str | None:
        """Report jobs in error state, which wait until it is cleared; a working folder or output file was unusable."""
        return f"Grid Engine put the job in error state ({held.state})" if "E" in held.state else None

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """Return jobs in error state, with Grid Engine's reason."""
        found = super().get_queueing_errors(distributor_ids)
        bases = sorted({self.form.base_of(identity) for identity in found})[:REASONS_MAX]
        reasons: dict[str, str] = {}
        if bases:
            try:
                reasons = parsing.error_reasons(self.runner.ask(commands.reasons_arguments(bases)))
            except JobmonError as error:
                reasons = dict.fromkeys(bases, str(error))
        return {
            identity: f"{text}: {reasons.get(self.form.base_of(identity), 'see qstat -j')}"
            for identity, text in found.items()
        }

    def tool_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which tools print machine-readable output."""
        return commands.tool_environment(environment)

    def job_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Remove the variables by which an outer job would affect Grid Engine's tools."""
        return commands.job_environment(environment)
