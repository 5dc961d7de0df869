"""Reports that stand-alone workers could not deliver: they lie beside the logs, one file per attempt.

The worker writes them (`worker_node/spool.py`). Whoever comes first replays them: a later worker, or the distributor
that holds the attempt, so that one whose job is gone is not taken for lost while its ending lies on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.core import wire
from jobmon.core.wire.launching import Report, WorkerReportRequest
from jobmon.distributor.batch import LOG_SHARD_SIZE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from jobmon.core.cluster_protocol import RemoteExit

SUFFIX: Final = ".report"
DAMAGED_SUFFIX: Final = ".damaged"
#: Below the data folder; `worker_node/process.py` writes there.
COMPLAINTS_FOLDER: Final = ("logs", "complaints")
COMPLAINT_CHARACTERS_MAX: Final = 2_000
#: Files read at once; more are read the next time.
FILES_MAX: Final = 1_000

logger = logging.getLogger(__name__)


class Spools:
    """The reports below one folder of logs."""

    def __init__(self, log_folder: str) -> None:
        self._log_folder = log_folder

    def read(self, attempts: Collection[int]) -> list[Report]:
        """Return what was kept of these attempts. A damaged file is put aside, and said."""
        found: list[Report] = []
        for path in self._paths(attempts):
            try:
                with open(path, "rb") as file:
                    reports = wire.decode(WorkerReportRequest, file.read()).reports
            except OSError:
                continue  # it cannot be read now
            except ValueError as error:
                logger.error("The report kept in %s is damaged (%s); it is put aside.", path, error)
                with contextlib.suppress(OSError):
                    os.rename(path, path + DAMAGED_SUFFIX)
            else:
                found += [report for report in reports if report.task_instance_id in attempts]
            if len(found) >= FILES_MAX:
                break
        return found

    def read_all(self) -> list[Report]:
        """Return what was kept of any attempt: of a packed job nobody knows here what it ran."""
        found: set[int] = set()
        with contextlib.suppress(OSError):
            for shard in os.listdir(self._log_folder):
                if shard.isdigit():
                    names = os.listdir(self._folder(int(shard)))
                    stems = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
                    found.update(int(stem) for stem in stems if stem.isascii() and stem.isdigit())
        return self.read(found) if found else []

    def remove(self, attempts: Iterable[int]) -> None:
        """The server knows how these ended."""
        for identity in attempts:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder(identity // LOG_SHARD_SIZE), f"{identity}{SUFFIX}"))

    def _folder(self, shard: int) -> str:
        return os.path.join(self._log_folder, str(shard))

    def _paths(self, attempts: Collection[int]) -> Iterator[str]:
        for shard in sorted({identity // LOG_SHARD_SIZE for identity in attempts}):
            folder = self._folder(shard)
            with contextlib.suppress(OSError):
                yield from (os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _is_of(name, attempts))


def _is_of(name: str, attempts: Collection[int]) -> bool:
    stem = name.removesuffix(SUFFIX)
    return stem != name and stem.isascii() and stem.isdigit() and int(stem) in attempts


class Complaints:
    """What workers wrote of themselves because they could not tell the server: one file per job of a cluster.

    The worker writes them (`worker_node/process.py`).
    """

    def __init__(self, data_folder: str, cluster_name: str) -> None:
        self._folder = os.path.join(data_folder, *COMPLAINTS_FOLDER, cluster_name)

    def added(self, distributor_id: str, ending: RemoteExit) -> RemoteExit:
        """Return the ending of a job with its worker's complaint in the message, if there is one."""
        path = os.path.join(self._folder, distributor_id)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(COMPLAINT_CHARACTERS_MAX).strip()
            os.unlink(path)
        except OSError:
            return ending
        if text in ending.message:  # the cluster kept what it printed
            return ending
        message = f"{ending.message}; its worker said: {text}" if ending.message else text
        return replace(ending, message=message)
