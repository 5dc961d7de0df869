"""Output files of attempts: create their folders in advance, and read the end of completed files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jobmon.agent import outputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.core.cluster_protocol import Launch


class OutputFiles:
    """Output files of attempts. Remembers which folders exist, so that repeated checks cost nothing.

    Folders that are removed later are recreated by the process that starts the commands.
    """

    def __init__(self, log_folder: str) -> None:
        self.log_folder = log_folder
        self._made: set[str] = set()

    def prepare(self, launches: Iterable[Launch]) -> None:
        """Create the folders of output files. If that fails, the attempt reports the error when it starts."""
        for launch in launches:
            for path in {launch.stdout, launch.stderr}:
                folder = path.rpartition("/")[0]
                if folder not in self._made:
                    with contextlib.suppress(OSError):
                        os.makedirs(folder, exist_ok=True)
                        self._made.add(folder)

    def tail(self, launch: Launch | None, task_instance_id: int) -> str:
        """Return the last part of an attempt's output; of two files, stderr unless it is empty."""
        if launch is None:
            return outputs.tail_text(outputs.last_bytes(self._find(task_instance_id)))
        return outputs.tail_text(outputs.tail(launch.stdout, launch.stderr))

    def _find(self, task_instance_id: int) -> str:
        """Return the log file of an attempt of an earlier distributor; "" if it is not in the default location."""
        folder = Path(self.log_folder, str(task_instance_id // outputs.LOG_SHARD_SIZE))
        return str(next(folder.glob(f"*.{task_instance_id}.log"), ""))
