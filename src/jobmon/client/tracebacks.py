"""Show an error that Jobmon raises on purpose as one message: its traceback adds nothing.

`JOBMON_TRACEBACK=1` shows the traceback. Errors of the script, and bugs in Jobmon, keep theirs.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import JobmonError

if TYPE_CHECKING:
    from types import TracebackType

VARIABLE: Final = "JOBMON_TRACEBACK"
_PACKAGE: Final = f"{Path(__file__).resolve().parents[1]}{os.sep}"


def install() -> None:
    """Show Jobmon errors that end the script or a notebook cell as one message. A second call changes nothing."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        return
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        shell.set_custom_exc((JobmonError,), _show_in_notebook)


class _Hook:
    """Replaces `sys.excepthook`."""

    def __init__(self, former: Any) -> None:
        self._former = former

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, JobmonError):
            sys.stderr.write(f"{message(error, trace)}\n")
        else:
            self._former(kind, error, trace)


def message(error: BaseException, trace: TracebackType | None) -> str:
    """Return the name of an error, its text, and the line of the script that caused it."""
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_PACKAGE)]
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _show_in_notebook(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
