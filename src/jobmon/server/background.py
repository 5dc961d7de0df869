"""Resume workflows for the page of an embedded server: start a client, which hands its run to a detached leader.

Only the server of a data folder does this: it runs as the user whose workflows it keeps. The client is our own
command; what it runs is what is recorded. Commands get the environment with which the server was started.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import number_of
from jobmon.core.wire.run import BackgroundResumeResponse

if TYPE_CHECKING:
    from pathlib import Path

#: How long a request waits for the new run; the client continues afterwards.
RESUME_SECONDS_MAX: Final = 20.0
#: Maximum number of clients at once.
RESUMES_MAX: Final = 4
#: Maximum number of characters of a client's message that are passed on.
MESSAGE_CHARACTERS_MAX: Final = 2_000


class Resumer:
    """Starts clients that resume workflows of one data folder.

    Args:
        data: the data folder.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        #: Clients that are starting, by workflow.
        self._starting: dict[int, asyncio.Task[tuple[int, str]]] = {}

    async def resume(self, workflow_id: int) -> BackgroundResumeResponse:
        """Start a run of a workflow, or wait for the one that is being started.

        Raises:
            InvalidRequest: too many are being started, or the client failed; with what it said.
        """
        starting = self._starting.get(workflow_id)
        if starting is None:
            if len(self._starting) >= RESUMES_MAX:
                raise InvalidRequest(
                    f"{number_of(RESUMES_MAX, 'other workflow')} being resumed, as many as possible. Try again when one"
                    " of them runs."
                )
            starting = self._starting[workflow_id] = asyncio.create_task(self._run(workflow_id))
            starting.add_done_callback(lambda _: self._starting.pop(workflow_id, None))
        done, _ = await asyncio.wait({starting}, timeout=RESUME_SECONDS_MAX)
        if not done:
            return BackgroundResumeResponse(is_running=False, message="It is being resumed; its run has not begun yet.")
        code, said = starting.result()
        if code != 0:
            raise InvalidRequest(f"Workflow {workflow_id} was not resumed. {said}")
        return BackgroundResumeResponse(is_running=True, message=said)

    async def _run(self, workflow_id: int) -> tuple[int, str]:
        """Run the client; return its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "jobmon", "workflow", "resume", str(workflow_id), "--background"),
            env={**os.environ, "JOBMON_DATA_DIR": str(self._data), "JOBMON__HTTP__SERVICE_URL": "", "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        output, _ = await process.communicate()
        code = 1 if process.returncode is None else process.returncode
        return code, output.decode(errors="replace").strip()[-MESSAGE_CHARACTERS_MAX:]
