"""Fixtures and options for all tiers.

No test knows the home of the user who runs it: each process of the session has a home of its own, and a test that
starts a server there instead of in a folder of its own fails.

The depth of hypothesis is set by its option `--hypothesis-profile`; `make thorough` uses `thorough`. Machines are
shared and at times very busy, so no test may fail because it is slow.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.databases import POSTGRESQL, SQLITE, NotInstalled, PostgreSQL, PostgreSQLDatabases, current, never_sync, use

from jobmon.core import access

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
SERVER = pytest.StashKey[PostgreSQL]()
HOME = pytest.StashKey[Path]()
settings.register_profile("local", UNHURRIED, max_examples=100)
settings.register_profile("thorough", UNHURRIED, max_examples=1000)
settings.load_profile("local")


def pytest_addoption(parser):
    parser.addoption(
        "--database",
        choices=(SQLITE, POSTGRESQL),
        default=SQLITE,
        help="what tests of the server run on; a PostgreSQL is started for the session",
    )


def pytest_configure(config):
    """Restore SIGINT: a shell that starts the tests in the background ignores it, and child processes inherit that.

    One PostgreSQL serves the whole session. The process that the user started runs it, and xdist's workers use it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[HOME] = _leave_home()
    never_sync()
    config.addinivalue_line("markers", "sqlite_only(reason): about something that exists on SQLite only")
    if config.getoption("--database") == POSTGRESQL:
        use(_postgresql(config))


def _leave_home():
    """Use an empty home from now on, and forget where the user keeps data; return it.

    Programs that tests start may keep what Python compiles: without, each server would compile all modules again.
    """
    home = Path(tempfile.mkdtemp(prefix="jobmon-home-"))
    for name in [name for name in os.environ if name.startswith(("JOBMON", "XDG_DATA_", "XDG_CONFIG_"))]:
        del os.environ[name]
    os.environ["HOME"] = str(home)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    return home


def _postgresql(config):
    address = getattr(config, "workerinput", {}).get(POSTGRESQL)
    if address is not None:
        return PostgreSQLDatabases(address)
    try:
        config.stash[SERVER] = server = PostgreSQL()
    except NotInstalled as error:
        raise pytest.UsageError(str(error)) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent at a time limit: also stop the server
    server.start()
    found = PostgreSQLDatabases(server.address)
    found.make_template()
    return found


def pytest_unconfigure(config):
    """Stop the PostgreSQL that this process started, and remove its home."""
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)
    if SERVER in config.stash:
        config.stash[SERVER].remove()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Pass the address of the session's PostgreSQL to a worker of xdist."""
    if SERVER in node.config.stash:
        node.workerinput[POSTGRESQL] = node.config.stash[SERVER].address


def pytest_collection_modifyitems(config, items):
    """Skip tests about SQLite if the tests run on PostgreSQL."""
    if config.getoption("--database") == SQLITE:
        return
    for item in items:
        if marker := item.get_closest_marker("sqlite_only"):
            item.add_marker(pytest.mark.skip(reason=f"SQLite only: {marker.kwargs['reason']}"))


@pytest.fixture(scope="session")
def databases():
    """Return the databases of this session; see `tests/databases.py`."""
    return current()


@pytest.fixture(autouse=True)
def _drop_databases_of_the_test(databases):
    """Drop databases that the test created; those of fixtures with a larger scope are older and stay."""
    mark = databases.mark()
    yield
    databases.drop_since(mark)


@pytest.fixture(autouse=True)
def _no_server_at_home(request):
    """Fail a test that started a server in the home, and stop that server."""
    yield
    data = request.config.stash[HOME] / ".local" / "share" / "jobmon"
    if access.access_file_path(data).exists():
        access.stop_server(data=data)
        shutil.rmtree(data)
        pytest.fail("This test started a server in the user's home: set JOBMON_DATA_DIR, or pass a requester.")


@pytest.fixture
def own_postgresql(databases):
    """Yield a PostgreSQL that the test may stop, start and break; skip the test if the session uses SQLite."""
    if databases.dialect != POSTGRESQL:
        pytest.skip("needs --database postgresql")
    server = PostgreSQL()
    try:
        server.start()
        PostgreSQLDatabases(server.address).make_template()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def institute_server(databases):
    """Return a context manager that runs a shared server on its own port and database, and yields its address."""

    @contextlib.contextmanager
    def run(folder, token, environment):
        command = [sys.executable, "-P", "-m", "jobmon.server", "--db", databases.uri(folder, "institute")]
        environment = {**environment, "JOBMON__HTTP__TOKEN": token}
        path = Path(folder, "institute.log")  # a pipe that is not read would block the server
        with path.open("w") as log, subprocess.Popen(command, env=environment, stderr=log, cwd=folder) as process:
            while not (found := re.search(r"listening on (http://\S+)\n", path.read_text())):
                assert process.poll() is None, path.read_text()
                time.sleep(0.02)
            try:
                yield found[1]
            finally:
                process.terminate()
                process.wait(timeout=30)

    return run
