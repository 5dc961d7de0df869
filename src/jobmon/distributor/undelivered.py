"""Reports that workers could not deliver, or that a server does not accept: one file per attempt on disk.

`jobmon.agent.journal` defines their location; workers write there as well. They are delivered by a later worker or by
the distributor that holds the attempt, whichever comes first. So an attempt whose job is gone is not declared lost
while its outcome is on disk. Earlier versions stored reports next to the logs; these are found as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.agent import journal, settlement
from jobmon.agent.outputs import LOG_SHARD_SIZE
from jobmon.core import wire
from jobmon.core.wire.launching import Report, WorkerReportRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from jobmon.core.cluster_protocol import RemoteExit

#: Relative to the data folder; `worker_node/process.py` writes there.
START_ERRORS_FOLDER: Final = ("logs", "start_errors")
START_ERROR_CHARACTERS_MAX: Final = 2_000
#: Maximum number of files read at once; the others are read the next time.
FILES_MAX: Final = 1_000

logger = logging.getLogger(__name__)


class UndeliveredReports:
    """Manage the undelivered reports of one workflow.

    Args:
        log_folder: folder of the workflow's logs, `<data folder>/logs/<workflow id>`.
        identity: identity of the server; "" for any server.
    """

    def __init__(self, log_folder: str, identity: str = "") -> None:
        self._log_folder = log_folder
        self._data_folder = os.path.dirname(os.path.dirname(log_folder))
        self._workflow_id = os.path.basename(log_folder)
        self._identity = journal.word(identity)
        self._said = settlement.Said()

    def read(self, attempts: Collection[int]) -> list[Report]:
        """Return the reports kept for these attempts. A damaged file is set aside, and logged."""
        found: list[Report] = []
        for path, attempt in self._paths(self._shards(attempts)):
            if attempt not in attempts:
                continue
            try:
                reports = wire.decode(WorkerReportRequest, journal.read(path)).reports
            except OSError as error:
                self._say("read", f"An undelivered report cannot be read now: {error}")
            except ValueError as error:
                logger.error("The undelivered report in %s is damaged (%s); it is set aside.", path, error)
                with contextlib.suppress(OSError):
                    journal.set_aside(path, journal.DAMAGED)
            else:
                found += [report for report in reports if report.task_instance_id in attempts]
            if len(found) >= FILES_MAX:
                break
        return found

    def read_all(self) -> list[Report]:
        """Return all kept reports: it is not known here which attempts a packed job ran."""
        shards: list[int] = []
        with contextlib.suppress(OSError):
            shards = sorted(int(one) for one in os.listdir(self._log_folder) if one.isascii() and one.isdigit())
        found = {attempt for _, attempt in self._paths(shards)}
        return self.read(found) if found else []

    def remove(self, attempts: Collection[int]) -> None:
        """Delete the reports of attempts whose outcome the server knows."""
        for path, attempt in self._paths(self._shards(attempts)):
            if attempt in attempts:
                journal.remove(path)

    def take_back(self, incarnation: str) -> list[Report]:
        """Return a limited number of reports that an earlier incarnation of the server did not know, to be sent again.

        Args:
            incarnation: the server's current incarnation.
        """
        now = journal.unknown_to(incarnation)
        attempts: set[int] = set()
        for path, entry in self._entries():
            if entry.unknown_to and now != journal.UNKNOWN + entry.unknown_to and len(attempts) < FILES_MAX:
                with contextlib.suppress(OSError):
                    journal.take_back(path)
                    attempts.add(entry.attempt)
        return self.read(attempts) if attempts else []

    def set_aside(self, report: Report, verdict: str, incarnation: str) -> str | None:
        """Keep a report that a server does not accept, under a name that indicates the reason.

        Args:
            report: the report.
            verdict: a verdict of `settlement`: UNKNOWN or another one.
            incarnation: the server's incarnation.

        Returns:
            The file's path, or None if it cannot be written now.
        """
        why = journal.unknown_to(incarnation) if verdict == settlement.UNKNOWN else journal.REFUSED
        content = wire.encode(WorkerReportRequest(reports=[report]))
        try:
            path = journal.keep(self._data_folder, self._workflow_id, report.task_instance_id, content, self._identity)
            return journal.set_aside(path, why)
        except OSError as error:
            self._say("keep", f"A report that the server does not accept cannot be saved to disk yet: {error}")
            return None

    def _say(self, kind: str, text: str) -> None:
        if self._said.is_due(kind, time.monotonic()):
            logger.warning("%s", text)

    @staticmethod
    def _shards(attempts: Iterable[int]) -> list[int]:
        return sorted({identity // LOG_SHARD_SIZE for identity in attempts})

    def _paths(self, shards: Iterable[int]) -> Iterator[tuple[str, int]]:
        """Yield path and attempt of all reports that may be sent, including those next to the logs of these shards."""
        for path, entry in self._entries():
            if not entry.unknown_to:
                yield path, entry.attempt
        for shard in shards:
            beside = os.path.join(self._log_folder, str(shard))
            for entry in journal.entries_beside_logs(beside):
                yield os.path.join(beside, entry.name), entry.attempt

    def _entries(self) -> Iterator[tuple[str, journal.Entry]]:
        """Yield path and entry of the reports for this server."""
        folder = journal.folder_of(self._data_folder, self._workflow_id)
        try:
            entries = journal.entries(self._data_folder, self._workflow_id)
        except OSError as error:
            self._say("read", f"Undelivered reports cannot be read: {error}")
            return
        for entry in entries:
            if entry.identity == self._identity or not (entry.identity and self._identity):
                yield os.path.join(folder, entry.name), entry


class StartErrors:
    """Error messages of workers that could not reach the server: one file per job of a cluster.

    Workers write them (`worker_node/process.py`).
    """

    def __init__(self, data_folder: str, cluster_name: str) -> None:
        self._folder = os.path.join(data_folder, *START_ERRORS_FOLDER, cluster_name)

    def added(self, distributor_id: str, ending: RemoteExit) -> RemoteExit:
        """Return the outcome of a job, with its worker's message appended if there is one."""
        path = os.path.join(self._folder, distributor_id)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(START_ERROR_CHARACTERS_MAX).strip()
            os.unlink(path)
        except OSError:
            return ending
        if text in ending.message:  # the cluster has captured the worker's output
            return ending
        message = f"{ending.message}; its worker said: {text}" if ending.message else text
        return replace(ending, message=message)
