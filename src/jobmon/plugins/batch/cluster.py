"""A cluster with its own queue, used through command-line tools: what all schedulers have in common."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import sys
import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobmon.core.cluster_protocol import (
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ArraySubmission,
    ClusterDistributor,
    RemoteExit,
)
from jobmon.core.configuration import data_directory
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import (
    ClusterFull,
    ClusterUnavailable,
    JobmonError,
    RemoteExitInfoNotAvailable,
    SubmissionDeferred,
)
from jobmon.plugins.batch.endings import Ending, last_words, remote_exit
from jobmon.plugins.batch.ids import IdFormat
from jobmon.plugins.batch.runner import Refused, ToolRunner
from jobmon.plugins.batch.submission import JobVariables, Mark, Submission, job_script, worker_command
from jobmon.plugins.batch.view import CANCELLED, Endings, View, steps_of_marks, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from jobmon.plugins.batch.answers import Texts
    from jobmon.plugins.batch.endings import Verdict
    from jobmon.plugins.batch.view import ListedJob

logger = logging.getLogger(__name__)
#: How long to wait for usage data after the scheduler reported the outcome.
ACCOUNTING_AWAITED_SECONDS: Final = 10.0
#: Accounting may lag by this much, so queries start this long before the requested time.
ACCOUNTING_LAG_SECONDS: Final = 120.0
#: How far back to search for submissions that the scheduler no longer remembers.
FIND_SUBMITTED_SECONDS: Final = 24 * 3600.0
#: How long a reason that only an administrator can resolve must persist.
REASON_LASTS_SECONDS: Final = 60.0
ENDINGS_KEPT_MAX: Final = 200_000
#: How often an array that does not fit is halved in one call, and the maximum number of jobs submitted at once.
HALVINGS_MAX: Final = 4
ROOM_MAX: Final = 1_000_000
OUTPUT_TAIL_BYTES_MAX: Final = 64 * 1024
WORKER_MODULE: Final = "jobmon.worker_node.start"


class BatchDistributor(ClusterDistributor):
    """Base of plug-ins for batch schedulers: submits, polls, kills and queries accounting with the scheduler's tools.

    A plug-in defines in class variables and a few methods how to call its scheduler and how to interpret the answers.
    If output cannot be parsed, it raises `garbage`.

    Args:
        cluster_name: the cluster's name in Jobmon.
        workflow_id: the output of jobs is written to this workflow's log folder.
        data_folder: the data folder; by default the configured one.
        connection: settings of `jobmon cluster add --set`. `python`: the interpreter on the nodes, by default the
            current one; `array_size`: maximum number of steps in an array, by default asked of the scheduler.
        environment: environment of tools and jobs; by default that of this process.
    """

    is_remote = True
    shares_watch = True
    continues_arrays = True

    #: Error messages of the scheduler's tools.
    texts: ClassVar[Texts]
    #: Variables in the environment of a job.
    variables: ClassVar[JobVariables]
    #: The scheduler's id format.
    form: ClassVar[IdFormat] = IdFormat()
    #: File in the workflow's log folder to which jobs append their own output.
    output_file: ClassVar[str] = "jobs.log"
    #: Whether the job script appends to that file itself: for schedulers that write a file per job, or only at the end.
    redirects_output: ClassVar[bool] = False
    #: Interval between two queries about ended jobs whose outcome no poll has reported, seconds.
    ask_again_seconds: ClassVar[float] = 10.0
    #: Time after which a job counts as cancelled while pending if neither the list nor accounting know it and it was
    #: never seen running, seconds. None: cancelled jobs are listed or accounted as well.
    vanished_after_seconds: ClassVar[float | None] = None

    def __init__(
        self,
        cluster_name: str,
        *args: Any,
        workflow_id: int = 0,
        data_folder: Path | None = None,
        connection: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cluster_name, *args, **kwargs)
        self.connection = dict(connection or {})
        surroundings = dict(os.environ if environment is None else environment)
        self.runner = ToolRunner(
            self.texts, self.tool_environment(surroundings), self.job_environment(surroundings), self.calls
        )
        self._python = str(self.connection.get("python") or sys.executable)
        self._output = (data_folder or data_directory()) / "logs" / str(workflow_id) / self.output_file
        self._room = ROOM_MAX  # maximum number of jobs per submission; reduced after the cluster was full
        self._has_met_limit = False
        self.watch_scope = str(os.getuid())  # other users' jobs may be hidden
        size = self.connection.get("array_size")
        self._array_size_max = int(size) if size else None
        self._has_accounting = True
        self._was_accounting_away = False
        self._is_shown = False
        self._view: View | None = None
        self._endings = Endings(ENDINGS_KEPT_MAX, self.form)
        self._submitted_at: dict[str, float] = {}  # job -> when; kept until a later poll
        self._seen_ended: dict[str, float] = {}  # id -> since when the scheduler reports it as ended
        self._seen_running: set[str] = set()
        self._vanished: dict[str, float] = {}  # id -> since when it is unknown everywhere
        self._doubted: dict[str, float] = {}  # id -> since when it waits for something that may never happen
        self._asked_at = float("-inf")

    # -- what a plug-in defines --------------------------------------------------------------------------------

    @abstractmethod
    def submit_arguments(self, submission: Submission) -> list[str]:
        """Return the command that submits the job script from its standard input and prints the job's id."""

    @abstractmethod
    def submitted_id(self, output: str) -> str:
        """Parse the number of the new job.

        Raises:
            ClusterUnavailable: see `garbage`.
        """

    @abstractmethod
    def list_arguments(self) -> list[str]:
        """Return the command that lists all jobs of this user."""

    @abstractmethod
    def listed(self, output: str) -> list[ListedJob]:
        """Parse the list; it may contain jobs that are not Jobmon's.

        Raises:
            ClusterUnavailable: see `garbage`.
        """

    @abstractmethod
    def kill_arguments(self, distributor_ids: Sequence[str]) -> list[list[str]]:
        """Return the commands that kill these jobs, with many ids per command."""

    @abstractmethod
    def verdict(self, ending: Ending) -> Verdict:
        """Return what an outcome means."""

    def account_arguments(self, bases: Collection[str]) -> list[list[str]]:
        """Return the commands that print the outcome of these jobs with all array steps; none if the list shows it.

        Args:
            bases: numbers of the jobs.
        """
        return []

    def accounted(self, output: str) -> list[ListedJob]:
        """Parse the output of accounting; each row has an `ending`.

        Raises:
            ClusterUnavailable: see `garbage`.
        """
        return []

    def account_since_arguments(self, since: float) -> list[str] | None:
        """Return the command that prints the outcome of all jobs of this user since then; None if there is none.

        Args:
            since: seconds since the epoch.
        """
        return None

    def array_size(self) -> int:
        """Ask the scheduler for the maximum number of steps in an array.

        Raises:
            ClusterUnavailable: no answer.
        """
        return ROOM_MAX

    def never_starts(self, held: ListedJob) -> str | None:
        """Return why a pending job will never start, and what to do; None if it may start."""
        return None

    def may_pass(self, held: ListedJob) -> bool:
        """Return whether the job may start after all, although `never_starts` gives a reason."""
        return False

    def pending_reason(self, held: ListedJob, moment: str) -> str:
        """Return why a job waits.

        Args:
            held: its row in the list.
            moment: the estimated start as text; "" if there is no estimate.
        """
        return f"{held.reason}{f'; estimated start {moment}' if moment else ''}"

    def tool_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for tools that query the scheduler."""
        return {**environment, "LC_ALL": "C"}

    def job_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for tools that submit, which jobs inherit."""
        return dict(environment)

    # -- submitting --------------------------------------------------------------------------------------------

    @property
    def worker_node_entry_point(self) -> str:
        """The command line of a worker that needs only the standard library."""
        found = importlib.util.find_spec(WORKER_MODULE)
        if found is None or found.origin is None:
            raise JobmonError(f"{WORKER_MODULE} is not installed.")
        return worker_command(self._python, found.origin)

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Submit one job."""
        return self._submit(command, name, requested_resources, 0, 1)[0]

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> ArraySubmission:
        """Submit arrays of the size that the cluster accepts; if there is no room for all steps, submit as many as fit.

        How many fit is determined by halving at the first limit only; later the remaining size is remembered.
        """
        offset = int(requested_resources.get(FIRST_STEP) or 0)
        submitted: dict[int, str] = {}
        halvings = 0
        while (done := len(submitted)) < array_length:
            try:
                length = min(array_length - done, self._largest_array(), self._room)
                submitted.update(self._submit(command, name, requested_resources, offset + done, length))
                if not halvings:
                    self._room = min(ROOM_MAX, self._room * 2)
            except ClusterFull as error:
                self._room = max(1, length // 2)
                if self._has_met_limit or submitted or length == 1 or halvings >= HALVINGS_MAX:
                    self._has_met_limit = True
                    return _part(submitted, error)
                halvings += 1
            except JobmonError as error:
                return _part(submitted, error)
        return ArraySubmission(submitted)

    def _submit(self, command: str, name: str, requested: Mapping[str, Any], first: int, length: int) -> dict[int, str]:
        token = str(requested.get(SUBMISSION_TOKEN) or f"jm-untracked-{os.getpid()}-{time.time_ns()}")
        mark = Mark(token, first, length)
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            folder = self._output.parent
            raise SubmissionDeferred(
                f"The folder for the output of jobs, {folder}, cannot be created: {error.strerror}"
            ) from error
        submission = Submission(name, mark, command, str(self._output), requested)
        answer = self.runner.tell(
            self.submit_arguments(submission),
            job_script(submission, self.variables, self.form, redirects_output=self.redirects_output),
        )
        base = self.submitted_id(answer)
        self._submitted_at[base] = time.time()
        return mark.ids(base, self.form)

    def _largest_array(self) -> int:
        if self._array_size_max is None:
            try:
                self._array_size_max = max(1, self.array_size())
            except Refused as error:  # a missing answer is raised as such and retried
                raise SubmissionDeferred(f"The maximum size of an array is unknown: {error}") from error
        return self._array_size_max

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Find jobs by the mark in their names: those the scheduler remembers, and those of the last day."""
        listed = self._listed()
        since = time.time() - FIND_SUBMITTED_SECONDS
        rows = [*self._account(self.account_since_arguments(since)), *listed]
        return steps_of_marks(((row.name, row.ids) for row in rows), tokens, self.form)

    # -- polling -----------------------------------------------------------------------------------------------

    def look(self, since: float) -> dict[str, Any]:
        """List all jobs of this user, and query accounting for those that ended since then, with one call each."""
        at = time.time()
        listed = self._listed()
        return view_of(at, listed, self._account(self.account_since_arguments(since - ACCOUNTING_LAG_SECONDS)))

    def _listed(self) -> list[ListedJob]:
        try:
            return self.listed(self.runner.ask(self.list_arguments()))
        except Refused as error:
            raise ClusterUnavailable(str(error)) from error

    def _account(self, arguments: Sequence[str] | None) -> list[ListedJob]:
        """Return the rows of accounting; none if it does not respond, since the scheduler may know outcomes as well."""
        if not self._has_accounting or arguments is None:
            return []
        try:
            found = self.accounted(self.runner.ask(arguments))
            self._was_accounting_away = False
            return found
        except Refused as error:
            if not self.is_known_no_more(str(error)):
                logger.warning(
                    "Cluster %s has no accounting; resource usage will be missing: %s", self.cluster_name, error
                )
                self._has_accounting = "disabled" not in str(error).lower()
        except ClusterUnavailable as error:
            is_news = not (self._was_accounting_away or self.runner.is_closed)
            level = logging.WARNING if is_news else logging.DEBUG
            logger.log(level, "Accounting of cluster %s does not respond: %s", self.cluster_name, error)
            self._was_accounting_away = True
        return []

    def is_known_no_more(self, error_text: str) -> bool:
        """Return whether accounting fails only because it has no record (yet) of the jobs in question."""
        return False

    def show(self, view: Mapping[str, Any]) -> None:
        """Answer queries from this view until the next one."""
        self._is_shown = True
        self._take(View(view, self.form))

    def _take(self, view: View) -> None:
        self._view = view
        self._endings.add(view.ended)
        self._seen_running.update(identity for one in view.held if not one.is_pending for identity in one.ids)
        self._submitted_at = {base: at for base, at in self._submitted_at.items() if at >= view.at}

    def _current(self) -> View:
        """Return the view shown last; if the caller never shows views, poll for one."""
        if self._view is None or not self._is_shown:
            self._take(View(self.look(time.time()), self.form))
        assert self._view is not None
        return self._view

    # -- queries -----------------------------------------------------------------------------------------------

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return the jobs that the scheduler has, or that were submitted after the last poll."""
        if not distributor_ids and distributor_ids is not None:
            return set()
        view = self._current()
        if distributor_ids is None:
            return {identity for one in view.held for identity in one.ids}
        return {
            identity
            for identity in distributor_ids
            if view.holds(identity) or self.form.base_of(identity) in self._submitted_at
        }

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """Return pending jobs with a reason that waiting does not resolve."""
        if self._view is None:
            return {}
        now = time.monotonic()
        doubtful = {one for one in distributor_ids if (held := self._view.find(one)) and self.may_pass(held)}
        self._doubted = {one: self._doubted.get(one, now) for one in doubtful}
        certain = [
            one for one in distributor_ids if one not in doubtful or now >= self._doubted[one] + REASON_LASTS_SECONDS
        ]
        return self._of_held(certain, self.never_starts)

    def get_pending_reasons(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return why jobs wait, with the scheduler's estimate of their start."""
        return self._of_held(distributor_ids, self._reason)

    def get_running_hosts(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return which of these jobs are running, and their hosts."""
        return self._of_held(distributor_ids, lambda held: held.host)

    def _reason(self, held: ListedJob) -> str:
        if not held.is_pending:
            return ""
        moment = ""
        if held.starts_at is not None:
            moment = datetime.fromtimestamp(held.starts_at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        return self.pending_reason(held, moment)

    def _of_held(self, distributor_ids: Collection[str], say: Callable[[ListedJob], str | None]) -> dict[str, str]:
        if self._view is None:
            return {}
        found = ((identity, self._view.find(identity)) for identity in distributor_ids)
        said = ((identity, say(held)) for identity, held in found if held is not None)
        return {identity: text for identity, text in said if text}

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """Return outcomes with usage; an outcome known only to the scheduler waits briefly for accounting."""
        found = self._settled(distributor_ids)
        missing = {self.form.base_of(identity) for identity in distributor_ids if identity not in found}
        now = time.monotonic()
        if missing and now >= self._asked_at + self.ask_again_seconds:
            self._asked_at = now
            for arguments in self.account_arguments(missing):
                rows = self._account(arguments)
                self._endings.add({row.text: row.ending for row in rows if row.ending is not None})
            found = self._settled(distributor_ids)
            self._note_vanished([one for one in distributor_ids if one not in found], now)
        self._seen_running.difference_update(found)
        verdicts = {identity: self.verdict(ending) for identity, ending in found.items()}
        is_well = all(status == TaskInstanceStatus.DONE for status, _, _ in verdicts.values())
        written = [] if is_well else self._written()
        return {
            identity: remote_exit(
                self.texts.system, ending, verdicts[identity], last_words(written, identity) if written else ""
            )
            for identity, ending in found.items()
        }

    def _note_vanished(self, missing: Sequence[str], now: float) -> None:
        """Record jobs as cancelled while pending if they have been unknown everywhere for long enough."""
        if self.vanished_after_seconds is None or self._was_accounting_away:
            return
        gone = [one for one in missing if one not in self._seen_running and self._endings.find(one) is None]
        self._vanished = {one: self._vanished.get(one, now) for one in gone}
        late = [one for one, since in self._vanished.items() if now >= since + self.vanished_after_seconds]
        self._endings.add({one: Ending(state=CANCELLED) for one in late})

    def _settled(self, distributor_ids: Sequence[str]) -> dict[str, Ending]:
        endings = ((identity, self._endings.find(identity)) for identity in distributor_ids)
        return {
            identity: ending for identity, ending in endings if ending is not None and self._is_all(identity, ending)
        }

    def _is_all(self, identity: str, ending: Ending) -> bool:
        """Return whether the outcome is complete or no longer worth waiting for."""
        is_known = ending.is_accounted or not self._has_accounting
        if is_known or self.verdict(ending)[0] == TaskInstanceStatus.DONE:
            self._seen_ended.pop(identity, None)
            return True
        now = time.monotonic()
        return now >= self._seen_ended.setdefault(identity, now) + ACCOUNTING_AWAITED_SECONDS

    def _written(self) -> list[str]:
        """Return the last lines that jobs themselves wrote: a worker's error, or why no worker started."""
        try:
            with self._output.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT_TAIL_BYTES_MAX))
                lines = file.read(OUTPUT_TAIL_BYTES_MAX).decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip() for line in lines if line.strip()]

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Return the outcome of one job."""
        found = self.get_remote_exits([distributor_id]).get(distributor_id)
        if found is None:
            raise RemoteExitInfoNotAvailable(
                f"{self.texts.system} does not report the outcome of job {distributor_id} yet."
            )
        return found.status, found.message

    # -- killing -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Abort all queries: tools may try for half a minute to reach a scheduler that does not respond."""
        self.runner.close()

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Kill jobs with as few commands as possible; jobs that have already ended are ignored."""
        for arguments in self.kill_arguments(distributor_ids):
            try:
                self.runner.ask(arguments)
            except Refused as error:
                if not self.texts.is_over(str(error)):
                    raise


def _part(submitted: dict[int, str], error: JobmonError) -> ArraySubmission:
    """Return the part of an array that was submitted before this error; raise the error if there is none."""
    if not submitted:
        raise error
    logger.warning("%d steps of an array were submitted before this error: %s", len(submitted), error)
    return ArraySubmission(submitted, error)


def user_name(user: str) -> str:
    """Return the name of a user id, or the id if it has no name on this host."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (KeyError, ValueError, OverflowError):
        return f"user {user}"
