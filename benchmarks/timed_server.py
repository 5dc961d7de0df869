"""A shared server that notes how long it takes to answer requests with a certain header; otherwise as `server run`.

`python -m benchmarks.timed_server FILE` writes the times to FILE as JSON when it exits, in seconds per value of the
header. They include everything after the head of a request was parsed, until the answer was handed to the connection.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.configuration import JobmonConfig
from jobmon.server import app, log_format, shared

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

#: The header by which the load generator marks the requests whose times count.
MARK: Final = "x-benchmark"
_MARK: Final = MARK.encode()


class _TimedApp(app._App):
    times: Final[dict[str, list[float]]] = defaultdict(list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        await super().__call__(scope, receive, send)
        for name, value in scope.get("headers", ()):
            if name == _MARK:
                self.times[value.decode()].append(time.perf_counter() - began)


def main() -> None:
    given: Any = app
    given._App = _TimedApp
    config = JobmonConfig()
    log_format.set_up(str(config.get("server", "log_format")))
    try:
        shared.run(config)
    finally:
        Path(sys.argv[1]).write_text(json.dumps(_TimedApp.times))


if __name__ == "__main__":
    main()
