"""Show an error that Jobmon raises on purpose as one message: its traceback adds nothing.

`JOBMON_TRACEBACK=1` shows the traceback. Errors of the script, and bugs in Jobmon, keep theirs. Importing
`jobmon.client` installs this, because every call of the public API may raise such an error.
"""

from __future__ import annotations

import os
import sys
import traceback
from opcode import opmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import JobmonError

if TYPE_CHECKING:
    from types import TracebackType

VARIABLE: Final = "JOBMON_TRACEBACK"
#: The folder of Jobmon's own code.
PACKAGE: Final = f"{Path(__file__).resolve().parents[1]}{os.sep}"
#: What Jobmon raises for invalid arguments and timeouts, besides its own errors.
_DELIBERATE: Final = (ValueError, TypeError, RuntimeError)
_RAISE: Final = opmap["RAISE_VARARGS"]


def install() -> None:
    """Show deliberate errors that end the script or a notebook cell as one message. A second call changes nothing."""
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        shell.set_custom_exc((JobmonError, *_DELIBERATE), _show_in_notebook)


def is_deliberate(error: BaseException, trace: TracebackType | None) -> bool:
    """Return whether an error is shown as one message.

    Args:
        error: any exception.
        trace: its traceback. A ValueError, TypeError or RuntimeError is deliberate if a `raise` statement of Jobmon
            raised it.
    """
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        return False
    if isinstance(error, JobmonError):
        return True
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, _DELIBERATE):
        return False
    code = trace.tb_frame.f_code
    return code.co_filename.startswith(PACKAGE) and code.co_code[trace.tb_lasti] == _RAISE


class _Hook:
    """Replaces `sys.excepthook`."""

    def __init__(self, former: Any) -> None:
        self._former = former

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if is_deliberate(error, trace):
            sys.stderr.write(f"{message(error, trace)}\n")
        else:
            self._former(kind, error, trace)


def message(error: BaseException, trace: TracebackType | None) -> str:
    """Return the name of an error, its text, and the line of the script that caused it.

    After a text of several lines, the line has its own: the last one is often a command to copy.
    """
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(PACKAGE)]
    where = f"({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}"
    separator = "\n" if "\n" in text else " "
    return f"{text}{separator}{where}" if where else text


def _show_in_notebook(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    if is_deliberate(error, trace):
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
