"""The undelivered reports of a program, which are kept on disk and delivered by a later one."""

from __future__ import annotations

import os

from jobmon.agent import fastjson, journal, settlement
from jobmon.agent.reports import RUNNING

REPLAYED_MAX = 20
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
    from typing import Any


class Undelivered:
    """The undelivered reports of one workflow.

    Args:
        data_folder: the data folder.
        workflow_id: the workflow.
        identity: the server's identity; "": it named none.
        incarnation: the server's incarnation when this program started; "": it named none.
        log_error: logs a message.
        monotonic: returns the monotonic time, seconds.
        beside_logs: the folder in which earlier versions put reports, which are delivered too; "": none.
        environment: the job's environment; set to name a folder for reports if the data folder cannot be used.
    """

    def __init__(
        self,
        data_folder: str,
        workflow_id: int,
        identity: str,
        incarnation: str,
        log_error: Callable[[str], object],
        monotonic: Callable[[], float],
        beside_logs: str = "",
        environment: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._data_folder = data_folder
        self._workflow_id = workflow_id
        self._identity = journal.word(identity)
        self.incarnation = incarnation
        self._log_error = log_error
        self._monotonic = monotonic
        self._beside_logs = beside_logs
        self._environment = environment
        self._said = settlement.Said()
        self._kept: dict[int, str] = {}  # attempt -> path of the report of its outcome

    def keep_all(self, reports: Iterable[Mapping[str, Any]]) -> bool:
        """Write those outcomes to disk that are not there yet; return whether all of them are there."""
        outcomes = [one for one in reports if one["status"] != RUNNING and one["task_instance_id"] not in self._kept]
        return None not in [self.keep(report) for report in outcomes]

    def keep(self, report: Mapping[str, Any]) -> str | None:
        """Write one report to disk; return its path, or None if it cannot be written now."""
        content = fastjson.dumps({"reports": [report], "alive": []}).encode()
        identity = report["task_instance_id"]
        try:
            folder = journal.usable_folder(self._data_folder, self._environment)
            path = journal.keep(folder, self._workflow_id, identity, content, self._identity)
        except OSError as error:
            self._say("keep", f"the report of attempt {identity} cannot be saved to disk yet: {error}")
            return None
        if folder == self._environment.get(journal.JOB_FOLDER_VARIABLE):
            self._say("elsewhere", f"{self._data_folder} cannot be used here; a report is kept in {path}")
        self._kept[identity] = path
        return path

    def forget(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Remove settled reports from disk."""
        for report in reports if self._kept else ():
            if report["status"] != RUNNING and (path := self._kept.pop(report["task_instance_id"], None)) is not None:
                journal.remove(path)

    def set_aside(self, report: Mapping[str, Any], verdict: str, why: str) -> bool:
        """Set aside on disk a report that the server does not accept; return whether that succeeded.

        It is never deleted. That a command is running need not be kept: the report of its outcome will follow.
        """
        if report["status"] == RUNNING:
            return True
        path = self._kept.get(report["task_instance_id"]) or self.keep(report)
        if path is None:
            return False
        is_unknown = verdict == settlement.UNKNOWN
        try:
            aside = journal.set_aside(path, journal.unknown_to(self.incarnation) if is_unknown else journal.REFUSED)
        except OSError as error:
            self._say("set aside", f"{path} cannot be renamed: {error}")
            return False
        del self._kept[report["task_instance_id"]]
        self._log_error(f"the server does not accept a report ({why}); it is kept in {aside}")
        return True

    def found(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield path and content of reports that earlier programs left, at most `REPLAYED_MAX`.

        A damaged file is renamed so that later workers skip it. An unreadable file stays for the next worker.
        """
        count = 0
        for path in self._paths():
            if count == REPLAYED_MAX:
                return
            try:
                content = journal.read(path)
            except OSError as error:
                self._say("read", f"an undelivered report cannot be read: {error}")
                continue
            reports = reports_in(content)
            if reports is None:
                self._set_aside_damaged(path)
            elif len(reports) == 1:
                count += 1
                self._kept[reports[0]["task_instance_id"]] = path
                yield path, reports[0]

    def _paths(self) -> Iterator[str]:
        job_folder = self._environment.get(journal.JOB_FOLDER_VARIABLE)
        for place in filter(None, (self._data_folder, job_folder)):
            yield from self._paths_in(place)
        for entry in journal.entries_beside_logs(self._beside_logs) if self._beside_logs else ():
            yield os.path.join(self._beside_logs, entry.name)

    def _paths_in(self, place: str) -> Iterator[str]:
        folder = journal.folder_of(place, self._workflow_id)
        try:
            entries = journal.entries(place, self._workflow_id)
        except OSError as error:
            self._say("read", f"undelivered reports cannot be read: {error}")
            entries = []
        for entry in entries:
            if entry.identity and self._identity and entry.identity != self._identity:
                continue  # belongs to another server
            if entry.unknown_to and journal.unknown_to(self.incarnation) == journal.UNKNOWN + entry.unknown_to:
                continue  # the server has not changed since
            yield os.path.join(folder, entry.name)

    def _set_aside_damaged(self, path: str) -> None:
        try:
            aside = journal.set_aside(path, journal.DAMAGED)
        except OSError as error:
            self._say("set aside", f"{path} cannot be renamed: {error}")
        else:
            self._log_error(f"an undelivered report is damaged; it is kept in {aside}")

    def _say(self, kind: str, text: str) -> None:
        if self._said.is_due(kind, self._monotonic()):
            self._log_error(text)


def reports_in(content: bytes) -> list[dict[str, Any]] | None:
    """Return the reports in a file, or None if it is damaged."""
    try:
        message = fastjson.loads(content.decode())
        reports = message["reports"]
        is_good = isinstance(reports, list) and all(isinstance(one["task_instance_id"], int) for one in reports)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return reports if is_good and reports else None
