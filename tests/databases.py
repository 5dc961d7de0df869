"""Databases for tests: SQLite files, or databases of a PostgreSQL server that the test session starts for itself.

`pytest --database postgresql` runs the same tests on PostgreSQL. A test asks `databases.uri(folder)` for its database
and reads it back with `rows` and `change`, so it never knows which of the two it runs on.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.server import database
from jobmon.server.database import open_engine
from jobmon.server.migrations import VERSION_TABLE, upgrade
from jobmon.server.migrations.upgrading import random_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
START_SECONDS_MAX: Final = 60.0
LOCKED_SECONDS_MAX: Final = 30.0
CONNECTIONS_MAX: Final = 300
_USER: Final = "jobmon"
_PORT: Final = 5432  # part of the socket's name only: nothing listens on the network
_TEMPLATE: Final = "schema_template"
_SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": str(CONNECTIONS_MAX),
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
#: Copying files takes less than logging each page of the copy.
_STRATEGY: Final = "STRATEGY FILE_COPY"
#: How many tests one copy serves: what they deleted makes its tables longer.
USES_MAX: Final = 50
_TABLES: Final = f"SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '{VERSION_TABLE}'"
_SEQUENCES: Final = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
#: What tests of the schema change: relations, columns, constraints, and the revision.
_SHAPE: Final = f"""
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
(SELECT count(*) FROM pg_attribute JOIN pg_class c ON attrelid = c.oid WHERE relnamespace = 'public'::regnamespace),
(SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
(SELECT min(version_num) FROM {VERSION_TABLE})
"""
_END_OTHERS: Final = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
#: For measurements: what a production database does.
DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
#: For tests in which PostgreSQL crashes: a commit that it acknowledged is in the operating system's hands.
CRASH_SAFE: Final = {"synchronous_commit": "on"}


def never_sync() -> None:
    """Let servers in this process commit without waiting for the disk, as PostgreSQL does here; none of them crashes.

    The disk takes half of the time of these tests. Servers that run as programs sync like those of users.
    """
    pragmas = tuple(pragma.replace("synchronous=FULL", "synchronous=OFF") for pragma in database._SQLITE_PRAGMAS)
    assert "PRAGMA synchronous=OFF" in pragmas
    database._SQLITE_PRAGMAS = pragmas  # type: ignore[misc]


class NotInstalled(Exception):
    """This machine has no PostgreSQL."""


def _programs() -> Path:
    """Return the folder of the newest PostgreSQL: Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    path = str(found[-1]) if found else shutil.which("initdb")
    if path is None:
        raise NotInstalled("PostgreSQL is not installed here; on Debian and Ubuntu: apt-get install postgresql")
    return Path(path).resolve().parent


class PostgreSQL:
    """A PostgreSQL server in a temporary folder, reached through a Unix socket that only this user may open.

    It refuses to run as root, so root starts it as the user `postgres`, which the package creates.
    """

    def __init__(self, **settings: str) -> None:
        """Make an empty server.

        Args:
            settings: settings of PostgreSQL that differ from those of most tests.
        """
        self._settings = _SETTINGS | settings
        self._programs = _programs()
        self._account: dict[str, Any] = {}
        if os.getuid() == 0:
            try:
                found = pwd.getpwnam("postgres")
            except KeyError:
                raise NotInstalled("PostgreSQL does not run as root, and there is no user postgres.") from None
            self._account = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        self.folder = Path(tempfile.mkdtemp(prefix="jobmon-pg-"))  # short: the socket's path is at most 107 bytes
        if self._account:
            os.chown(self.folder, self._account["user"], self._account["group"])
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", "data", "-U", _USER, "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")

    @property
    def address(self) -> str:
        """The folder of the socket; `uri_of` makes addresses of databases from it."""
        return str(self.folder)

    @property
    def log(self) -> str:
        """Return the server's output."""
        return (self.folder / "log").read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
            **self._account,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        settings = self._settings | {"unix_socket_directories": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", "data", *(f"--{name}={value}" for name, value in settings.items())],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt of the tests is not one of the server: tests still clean up
                **self._account,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer: {self.log}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        try:
            administer(self.address, "SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGINT ends all connections, SIGQUIT is a crash (recovery follows at the next start)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=START_SECONDS_MAX)
            self._process = None

    def remove(self) -> None:
        """Stop the server and delete everything."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def administer(address: str, *statements: str) -> None:
    """Run statements about databases, each in a transaction of its own."""
    with _connected(address) as connection:
        for statement in statements:
            connection.execute(statement)


def _connected(address: str, database: str = "postgres") -> Any:
    import psycopg

    return psycopg.connect(host=address, port=_PORT, user=_USER, dbname=database, autocommit=True)


def uri_of(address: str, name: str) -> str:
    """Return the URI of a database, as users write it in `db.sqlalchemy_database_uri`."""
    return f"postgresql://{_USER}@/{name}?host={address}&port={_PORT}"


@cache
def _sqlite_template() -> tuple[bytes, bytes]:
    """Return the content of a new database, which takes a hundred times longer to create than to write, and its word.

    The word is the server's identity.
    """
    with tempfile.TemporaryDirectory(prefix="jobmon-template-") as folder:
        engine = open_engine(f"sqlite:///{folder}/template.sqlite")
        upgrade(engine)
        ((word,),) = rows(f"sqlite:///{folder}/template.sqlite", "SELECT word FROM server_identity")
        engine.dispose()
        content = Path(folder, "template.sqlite").read_bytes()
    assert content.count(word.encode()) == 1
    return content, word.encode()


class Databases:
    """The databases of a test session. One name in one folder is one database, so a restart finds it again."""

    dialect = SQLITE

    def uri(self, folder: Path | str, name: str = "jobmon", *, empty: bool = False) -> str:
        """Return the URI of a database that belongs to the folder; create it where that is needed.

        Args:
            folder: any folder of the test.
            name: which of the folder's databases.
            empty: without a schema. Otherwise it may already have that of the models.
        """
        path = Path(folder, f"{name}.sqlite")
        if not empty and path.parent.is_dir() and not path.exists():
            content, word = _sqlite_template()
            path.touch(mode=0o600)
            path.write_bytes(content.replace(word, random_identity().encode()))  # every server's identity is its own
        return f"sqlite:///{path}"

    def copy(self, uri: str, folder: Path | str) -> str:
        """Copy a database that is not in use; return the URI of the copy."""
        copy = self.uri(folder, "copy", empty=True)
        shutil.copy(uri.removeprefix("sqlite:///"), copy.removeprefix("sqlite:///"))
        return copy

    def mark(self) -> int:
        """Return what `drop_since` takes."""
        return 0

    def drop_since(self, mark: int) -> None:
        """Drop the databases created since `mark`. SQLite's go with their folders."""


class _Copy:
    """A copy of the template that serves one test after another, with a connection to clean it."""

    def __init__(self, address: str, database: str) -> None:
        self._line = _connected(address, database)
        atexit.register(self._line.close)
        self._tables = [name for (name,) in self._line.execute(_TABLES)]
        self._sequences = [name for (name,) in self._line.execute(_SEQUENCES)]
        self._shape = self._line.execute(_SHAPE).fetchone()
        self._uses = 0

    def rename(self) -> None:
        """Every server's identity is its own."""
        self._line.execute(f"UPDATE server_identity SET word = '{random_identity()}'")

    def clean(self) -> bool:
        """End all other sessions and delete all rows; return whether it is like the template again."""
        import psycopg

        self._uses += 1
        try:
            self._line.execute(_END_OTHERS)
            if self._uses >= USES_MAX or self._line.execute(_SHAPE).fetchone() != self._shape:
                return False
            self._line.execute(
                ";".join(
                    (
                        "BEGIN",
                        "SET LOCAL session_replication_role = replica",  # no references are checked
                        *(f"DELETE FROM {table}" for table in self._tables),
                        *(f"ALTER SEQUENCE {sequence} RESTART" for sequence in self._sequences),
                        "INSERT INTO logical_clock (id, stamp) VALUES (1, 0)",
                        f"INSERT INTO server_identity (id, word) VALUES (1, '{random_identity()}')",
                        "COMMIT",
                    )
                )
            )
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._line.close()


class PostgreSQLDatabases(Databases):
    """Databases of one server, most of them copies of a template that has the schema.

    To copy and to drop one takes longer than most tests. So what a test leaves in a copy is deleted, and the next test
    gets it, unless it is no longer like the template.
    """

    dialect = POSTGRESQL

    def __init__(self, address: str) -> None:
        self.address = address
        #: Key of a database that a test asked for -> its name on the server.
        self._created: dict[str, str] = {}
        self._copies: dict[str, _Copy] = {}
        self._free: list[str] = []
        self._numbers = itertools.count()
        self._line: Any = None

    def make_template(self) -> None:
        """Create the template: once per server, before any test."""
        administer(self.address, f"CREATE DATABASE {_TEMPLATE}")
        engine = open_engine(uri_of(self.address, _TEMPLATE))
        upgrade(engine)
        engine.dispose()

    def uri(self, folder: Path | str, name: str = "jobmon", *, empty: bool = False) -> str:
        """See `Databases`."""
        key = f"{folder}/{name}"
        if key not in self._created:
            if not empty and self._free:
                self._created[key] = self._free.pop()
            else:
                self._create(key, "template0" if empty else _TEMPLATE)
        return uri_of(self.address, self._created[key])

    def _create(self, key: str, template: str) -> None:
        database = f"t{os.getpid()}_{next(self._numbers)}"
        self._administer(f"CREATE DATABASE {database} TEMPLATE {template} {_STRATEGY}")
        self._created[key] = database
        if template == _TEMPLATE:
            self._copies[database] = copy = _Copy(self.address, database)
            copy.rename()

    def copy(self, uri: str, folder: Path | str) -> str:
        """See `Databases`."""
        key = f"{folder}/copy"
        database = uri.partition("@/")[2].partition("?")[0]
        if database in self._copies:
            self._copies.pop(database).close()  # a template must have no session
        self._create(key, database)
        return uri_of(self.address, self._created[key])

    def mark(self) -> int:
        """See `Databases`."""
        return len(self._created)

    def drop_since(self, mark: int) -> None:
        """See `Databases`."""
        for key in list(self._created)[mark:]:
            database = self._created.pop(key)
            copy = self._copies.get(database)
            if copy is not None and copy.clean():
                self._free.append(database)
                continue
            if copy is not None:
                self._copies.pop(database).close()
            self._administer(f"DROP DATABASE {database} WITH (FORCE)")

    def _administer(self, *statements: str) -> None:
        """Run statements as `administer` does, over a connection that is kept while the server runs."""
        import psycopg

        if self._line is not None:
            try:
                self._line.execute("SELECT 1")
            except psycopg.OperationalError:  # the server was restarted
                self._line = None
        if self._line is None:
            self._line = _connected(self.address)
            atexit.register(self._line.close)
        for statement in statements:
            self._line.execute(statement)


_current = Databases()


def current() -> Databases:
    """Return the databases of this session."""
    return _current


def use(chosen: Databases) -> None:
    """Choose the databases of this session."""
    global _current  # noqa: PLW0603 - functions that open a server are called without fixtures, too
    _current = chosen


def rows(uri: str, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a query that both databases understand. Values are named `:name` in it."""
    with _cursor(uri) as cursor:
        _execute(cursor, sql, values)
        return [tuple(row) for row in cursor.fetchall()]


def change(uri: str, sql: str, **values: Any) -> None:
    """Run and commit one statement that both databases understand."""
    with _cursor(uri) as cursor:
        _execute(cursor, sql, values)
        cursor.connection.commit()


@contextlib.contextmanager
def _cursor(uri: str) -> Iterator[Any]:
    """Yield a cursor of the driver itself: SQLAlchemy asks a new database several questions before the first one."""
    if uri.startswith("sqlite:///"):
        connection: Any = sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=LOCKED_SECONDS_MAX)
    else:
        import psycopg

        connection = psycopg.connect(uri)
    with contextlib.closing(connection):
        yield connection.cursor()


def _execute(cursor: Any, sql: str, values: dict[str, Any]) -> None:
    if not isinstance(cursor, sqlite3.Cursor):
        sql = re.sub(
            r"(?<!:):(\w+)", lambda found: f"%({found[1]})s" if found[1] in values else found[0], sql.replace("%", "%%")
        )
    cursor.execute(sql, values)
