"""Run a user's script in this process, as Python does: `python -P -m jobmon.client.script SCRIPT [ARGS]...`.

Our own interpreters never search the current directory for modules (`-P`); the script's folder is searched, as usual.
"""

from __future__ import annotations

import runpy
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Give the process the arguments and the module search path that it has when Python runs the script."""
    words, path = sys.argv, sys.path[:]
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = words, path


def own_frames(error: BaseException, *others: str) -> Any:
    """Return the frames of the script, without those of the code that runs it; None if there are no others.

    Args:
        error: an exception that the script raised.
        others: further files whose frames are omitted.
    """
    omitted = (*others, __file__, runpy.__file__, "<frozen runpy>")
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename in omitted:
        frame = frame.tb_next
    return frame


def main() -> None:
    """Run the script that the first argument names."""
    script, *arguments = sys.argv[1:]
    with as_main(Path(script), arguments):
        try:
            runpy.run_path(script, run_name="__main__")
        except Exception as error:
            shown = error.with_traceback(own_frames(error))
            sys.excepthook(type(shown), shown, shown.__traceback__)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
