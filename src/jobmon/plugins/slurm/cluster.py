"""A Slurm cluster as Jobmon's distributor sees it: submits, looks, ends."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import SUBMISSION_TOKEN, ClusterDistributor, RemoteExit
from jobmon.core.configuration import data_directory
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, JobmonError, RemoteExitInfoNotAvailable
from jobmon.plugins.slurm import commands, parsing
from jobmon.plugins.slurm.commands import Mark, Submission
from jobmon.plugins.slurm.discovery import SHOW_CONFIGURATION
from jobmon.plugins.slurm.endings import Ending, endings_of_accounting, last_words, remote_exit
from jobmon.plugins.slurm.runner import SlurmRefused, SlurmRunner
from jobmon.plugins.slurm.view import (
    Endings,
    Held,
    View,
    ids_of,
    may_pass,
    never_starts,
    pending_reason,
    steps_of_marks,
    view_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from jobmon.core.constants import TaskInstanceStatus

logger = logging.getLogger(__name__)
#: Accounting lags: what ended at the first moment asked for may be told this much later.
ACCOUNTING_LAG_SECONDS: Final = 120.0
#: How long usage is waited for when the controller has told the ending already.
ACCOUNTING_AWAITED_SECONDS: Final = 10.0
#: Between two questions about jobs of which no look says anything.
ASK_AGAIN_SECONDS: Final = 10.0
#: How far back submissions are searched that have left the controller's memory.
FIND_SUBMITTED_SECONDS: Final = 24 * 3600.0
#: A reason that only an administrator can lift must have stood as long.
REASON_LASTS_SECONDS: Final = 60.0
ENDINGS_KEPT_MAX: Final = 200_000
#: Where Slurm's own default is all that is known.
ARRAY_SIZE_DEFAULT: Final = 1001
#: How often an array that finds no room is halved at one go, and the most that is submitted at once.
HALVINGS_MAX: Final = 4
ROOM_MAX: Final = 1_000_000
#: What jobs themselves write, not their commands, goes to one file of a workflow.
OUTPUT_FILE: Final = "slurm-jobs.log"
OUTPUT_TAIL_BYTES_MAX: Final = 64 * 1024
WORKER_MODULE: Final = "jobmon.worker_node.start"
#: What `scancel` says of jobs that are over already.
_OVER_ALREADY: Final = ("invalid job id", "already completing or completed")


class SlurmDistributor(ClusterDistributor):
    """Submits to the Slurm cluster that this host belongs to, as the user who runs it.

    Args:
        cluster_name: its name in Jobmon.
        workflow_id: output of jobs goes to this workflow's folder of logs.
        data_folder: the data folder; default: the usual one.
        connection: `python`: the interpreter on the nodes, by default ours; `slurm_conf`: path of another `slurm.conf`;
            `array_size`: how many steps an array may have, by default what Slurm says.
        environment: of Slurm's tools and of the jobs.
    """

    is_remote = True
    shares_watch = True

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
        given = dict(connection or {})
        surroundings = dict(os.environ if environment is None else environment)
        if given.get("slurm_conf"):
            surroundings["SLURM_CONF"] = str(given["slurm_conf"])
        self._runner = SlurmRunner(
            commands.tool_environment(surroundings), commands.job_environment(surroundings), self.calls
        )
        self._python = str(given.get("python") or sys.executable)
        self._output = (data_folder or data_directory()) / "logs" / str(workflow_id) / OUTPUT_FILE
        self._room = ROOM_MAX  # how many jobs are submitted at once: fewer after Slurm had no room for as many
        self.watch_scope = str(os.getuid())  # Slurm may hide the jobs of others
        self._array_size_max = int(given["array_size"]) if given.get("array_size") else None
        self._has_accounting = True
        self._was_accounting_away = False
        self._is_shown = False
        self._view: View | None = None
        self._endings = Endings(ENDINGS_KEPT_MAX)
        self._submitted_at: dict[str, float] = {}  # base -> when, until a look was taken after it
        self._seen_ended: dict[str, float] = {}  # id -> since when the controller says that it is over
        self._doubted: dict[str, float] = {}  # id -> since when it waits for what may never come
        self._asked_at = float("-inf")

    @property
    def worker_node_entry_point(self) -> str:
        """A worker that needs nothing but the standard library."""
        found = importlib.util.find_spec(WORKER_MODULE)
        if found is None or found.origin is None:
            raise JobmonError(f"{WORKER_MODULE} is not installed.")
        return commands.worker_command(self._python, found.origin)

    # -- submitting --------------------------------------------------------------------------------------------

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Submit one job."""
        return self._submit(command, name, requested_resources, 0, 1)[0]

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> dict[int, str]:
        """Submit arrays no larger than the cluster takes; where it has no room for all, as many steps as fit."""
        submitted: dict[int, str] = {}
        halvings = 0
        while (first := len(submitted)) < array_length:
            length = min(array_length - first, self._array_size(), self._room)
            try:
                submitted.update(self._submit(command, name, requested_resources, first, length))
                self._room = min(ROOM_MAX, self._room * 2)
            except ClusterFull as error:
                self._room = max(1, length // 2)
                halvings += 1
                if halvings > HALVINGS_MAX or length == 1:
                    return _part(submitted, error)
            except SlurmRefused as error:
                return _part(submitted, error)
        return submitted

    def _submit(self, command: str, name: str, requested: Mapping[str, Any], first: int, length: int) -> dict[int, str]:
        token = str(requested.get(SUBMISSION_TOKEN) or f"jm-untracked-{os.getpid()}-{time.time_ns()}")
        mark = Mark(token, first, length)
        self._output.parent.mkdir(parents=True, exist_ok=True)
        submission = Submission(name, mark, command, str(self._output), requested)
        answer = self._runner.tell(commands.sbatch_arguments(submission), commands.job_script(submission))
        base = parsing.submitted_id(answer)
        self._submitted_at[base] = time.time()
        return ids_of(mark, base)

    def _array_size(self) -> int:
        """How many steps an array may have: Slurm's MaxArraySize is one more than the highest index."""
        if self._array_size_max is None:
            word = parsing.configuration(self._runner.ask(SHOW_CONFIGURATION)).get("MaxArraySize", "")
            self._array_size_max = max(1, int(word) if word.isdecimal() else ARRAY_SIZE_DEFAULT)
        return self._array_size_max

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Find jobs by the mark in their names: those that the controller remembers, and those of the last day."""
        rows = [(row.name, row.ids) for row in self._queue()]
        past = self._accounting(commands.sacct_arguments(os.getuid(), time.time() - FIND_SUBMITTED_SECONDS))
        return steps_of_marks([*((row.name, row.ids) for row in past), *rows], tokens)

    # -- looking -----------------------------------------------------------------------------------------------

    def look(self, since: float) -> dict[str, Any]:
        """Ask controller and accounting about all jobs of this user, one question each."""
        at = time.time()
        queue = self._queue()
        accounting = self._accounting(commands.sacct_arguments(os.getuid(), since - ACCOUNTING_LAG_SECONDS))
        return view_of(at, queue, accounting)

    def _queue(self) -> list[parsing.QueueRow]:
        try:
            return parsing.queue_rows(self._runner.ask(commands.squeue_arguments(os.getuid())))
        except SlurmRefused as error:
            raise ClusterUnavailable(str(error)) from error

    def _accounting(self, arguments: Sequence[str]) -> list[parsing.AccountingRow]:
        """Return what accounting says; nothing where it is away, for the controller knows endings, too."""
        if not self._has_accounting:
            return []
        try:
            found = parsing.accounting_rows(self._runner.ask(arguments))
            self._was_accounting_away = False
            return found
        except SlurmRefused as error:
            logger.warning("Cluster %s has no accounting, usage will be missing: %s", self.cluster_name, error)
            self._has_accounting = "disabled" not in str(error).lower()
        except ClusterUnavailable as error:
            is_news = not (self._was_accounting_away or self._runner.is_closed)
            level = logging.WARNING if is_news else logging.DEBUG
            logger.log(level, "Accounting of cluster %s does not answer: %s", self.cluster_name, error)
            self._was_accounting_away = True
        return []

    def show(self, view: Mapping[str, Any]) -> None:
        """Answer from this view until the next one."""
        self._is_shown = True
        self._take(View(view))

    def _take(self, view: View) -> None:
        self._view = view
        self._endings.add(view.ended)
        self._submitted_at = {base: at for base, at in self._submitted_at.items() if at >= view.at}

    def _current(self) -> View:
        """Return the view shown last; a caller that never shows any gets one looked for it."""
        if self._view is None or not self._is_shown:
            self._take(View(self.look(time.time())))
        assert self._view is not None
        return self._view

    # -- answering ---------------------------------------------------------------------------------------------

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return what Slurm holds, or was given after the last look."""
        if not distributor_ids and distributor_ids is not None:
            return set()
        view = self._current()
        if distributor_ids is None:
            return {identity for one in view.held for identity in one.ids}
        return {
            identity
            for identity in distributor_ids
            if view.holds(identity) or identity.partition("_")[0] in self._submitted_at
        }

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """Return pending jobs whose reason no waiting lifts."""
        if self._view is None:
            return {}
        now = time.monotonic()
        doubtful = {one for one in distributor_ids if (held := self._view.find(one)) is not None and may_pass(held)}
        self._doubted = {one: self._doubted.get(one, now) for one in doubtful}
        certain = [
            one for one in distributor_ids if one not in doubtful or now >= self._doubted[one] + REASON_LASTS_SECONDS
        ]
        return self._of_held(certain, never_starts)

    def get_pending_reasons(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return why jobs wait, with the start that the scheduler estimates."""
        return self._of_held(distributor_ids, _reason)

    def _of_held(self, distributor_ids: Collection[str], say: Callable[[Held], str | None]) -> dict[str, str]:
        if self._view is None:
            return {}
        found = ((identity, self._view.find(identity)) for identity in distributor_ids)
        said = ((identity, say(held)) for identity, held in found if held is not None)
        return {identity: text for identity, text in said if text}

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """Return how jobs ended, with their usage; what the controller alone tells waits a moment for accounting."""
        found = self._settled(distributor_ids)
        missing = {identity.partition("_")[0] for identity in distributor_ids if identity not in found}
        now = time.monotonic()
        if missing and now >= self._asked_at + ASK_AGAIN_SECONDS:
            self._asked_at = now
            for arguments in commands.sacct_of_jobs_arguments(missing):
                rows = self._accounting(arguments)
                self._endings.add(endings_of_accounting(rows))
            found = self._settled(distributor_ids)
        written = self._written() if any(ending.state == "FAILED" for ending in found.values()) else []
        return {
            identity: remote_exit(ending, user_name, last_words(written, identity))
            for identity, ending in found.items()
        }

    def _settled(self, distributor_ids: Sequence[str]) -> dict[str, Ending]:
        endings = ((identity, self._endings.find(identity)) for identity in distributor_ids)
        return {
            identity: ending for identity, ending in endings if ending is not None and self._is_all(identity, ending)
        }

    def _is_all(self, identity: str, ending: Ending) -> bool:
        """Whether no more is to be waited for."""
        if ending.is_accounted or ending.state == "COMPLETED" or not self._has_accounting:
            self._seen_ended.pop(identity, None)
            return True
        now = time.monotonic()
        return now >= self._seen_ended.setdefault(identity, now) + ACCOUNTING_AWAITED_SECONDS

    def _written(self) -> list[str]:
        """Return the last lines that jobs themselves wrote: a worker's complaint, or why there was no worker."""
        try:
            with self._output.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT_TAIL_BYTES_MAX))
                lines = file.read(OUTPUT_TAIL_BYTES_MAX).decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip() for line in lines if line.strip()]

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Return how one job ended."""
        found = self.get_remote_exits([distributor_id]).get(distributor_id)
        if found is None:
            raise RemoteExitInfoNotAvailable(f"Slurm does not say yet how job {distributor_id} ended.")
        return found.status, found.message

    # -- ending ------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Wait for no answer any more: Slurm's tools try for half a minute to reach a controller that is away."""
        self._runner.close()

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Cancel these in as few commands as can be; those that are over already do not matter."""
        for arguments in commands.scancel_arguments(distributor_ids):
            try:
                self._runner.ask(arguments)
            except SlurmRefused as error:
                if not any(sign in str(error).lower() for sign in _OVER_ALREADY):
                    raise


def _part(submitted: dict[int, str], error: JobmonError) -> dict[int, str]:
    """Return what of an array was submitted before this error; if nothing was, the error tells."""
    if not submitted:
        raise error
    logger.warning("%d steps of an array were submitted, then: %s", len(submitted), error)
    return submitted


def _reason(held: Held) -> str:
    if not held.is_pending:
        return ""
    moment = ""
    if held.starts_at is not None:
        moment = datetime.fromtimestamp(held.starts_at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    return pending_reason(held, moment)


def user_name(user: str) -> str:
    """Return the name of a user id; the id where it has none here."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (KeyError, ValueError, OverflowError):
        return f"user {user}"
