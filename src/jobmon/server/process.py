"""Run a server as a process: the embedded server of a data folder, or a shared server."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.descriptors import open_standard
from jobmon.core.exceptions import JobmonError
from jobmon.server import embedded, log_format, shared


def main(arguments: list[str] | None = None) -> int:
    """Run a server until it is told to exit or, if embedded, until it is idle."""
    options = _parser().parse_args(arguments)
    open_standard()
    os.umask(0o077)  # everything it creates is accessible only to its user
    try:
        config = JobmonConfig()
        config.check()
        log_format.set_up(str(config.get("server", "log_format")))
        if options.embedded:
            data = Path(options.data_dir) if options.data_dir else data_directory()
            return embedded.run(data, take_over=options.take_over)
        return shared.run(config, uri=options.db, host=options.host, port=options.port)
    except JobmonError as error:
        sys.stderr.write(f"jobmon server: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobmon.server", description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="serve one user's data folder; exit when unused")
    parser.add_argument("--data-dir", default="", help="data folder of an embedded server")
    parser.add_argument("--take-over", action="store_true", help="replace a server whose host is gone")
    parser.add_argument("--db", default="", help="SQLAlchemy URI of a shared server's database, without a password")
    parser.add_argument("--host", default="", help="address on which a shared server listens")
    parser.add_argument("--port", type=int, default=0, help="port on which it listens; 0: one of server.ports")
    return parser
