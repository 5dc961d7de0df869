"""The output files of attempts: folders made before they are needed, the end of them read when they are complete."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jobmon.core.constants import LOG_TAIL_BYTES_MAX
from jobmon.distributor.batch import LOG_SHARD_SIZE, tail_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.core.cluster_protocol import Launch


class OutputFiles:
    """Knows which folders exist, so that making sure costs nothing."""

    def __init__(self, log_folder: str) -> None:
        self._log_folder = log_folder
        self._made: set[str] = set()

    def prepare(self, launches: Iterable[Launch]) -> None:
        """Make the folders of output files. One that cannot be made becomes the attempt's error when it starts."""
        for launch in launches:
            for path in {launch.stdout, launch.stderr}:
                folder = path.rpartition("/")[0]
                if folder not in self._made:
                    with contextlib.suppress(OSError):
                        os.makedirs(folder, exist_ok=True)
                        self._made.add(folder)

    def tail(self, launch: Launch | None, task_instance_id: int) -> str:
        """Return the last part of an attempt's output; of two files the errors, unless there are none."""
        if launch is None:
            return tail_text(_last_bytes(self._find(task_instance_id)))
        content = _last_bytes(launch.stderr)
        if not content and launch.stdout != launch.stderr:
            content = _last_bytes(launch.stdout)
        return tail_text(content)

    def _find(self, task_instance_id: int) -> str:
        """Return the file of an attempt that an earlier distributor launched; "": it is not where they usually lie."""
        folder = Path(self._log_folder, str(task_instance_id // LOG_SHARD_SIZE))
        return str(next(folder.glob(f"*.{task_instance_id}.log"), ""))


def _last_bytes(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, LOG_TAIL_BYTES_MAX, max(0, size - LOG_TAIL_BYTES_MAX)) if size else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)
