"""Two users, the folders they share, and the list of attacks that is printed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.security import users

NEEDS = "needs root and useradd: the attacks are made between two Unix users, who are created for it"
#: Marks tests that are not attacks but check that everything works without one.
CONTROL = "control"
_attacks: dict[str, str] = {}


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=NEEDS))


def pytest_runtest_logreport(report):
    if "tests/security/test_attacks" in report.nodeid and (report.when == "call" or not report.passed):
        name = report.nodeid.partition("::test_")[2].replace("_", " ")
        if not report.skipped and not name.startswith(CONTROL):
            _attacks[name] = "refused" if report.passed and _attacks.get(name) != "SUCCEEDED" else "SUCCEEDED"


def pytest_terminal_summary(terminalreporter):
    if _attacks:
        terminalreporter.section("attacks")
        for name, outcome in _attacks.items():
            terminalreporter.write_line(f"{outcome:9}  {name}")
        succeeded = sum(outcome == "SUCCEEDED" for outcome in _attacks.values())
        terminalreporter.write_line(f"{len(_attacks)} attacks were tried, {succeeded} succeeded")


@dataclass
class World:
    """Two users, an administrator who runs what they share, and the shared folders."""

    victim: users.User
    attacker: users.User
    administrator: users.User
    root: Path
    #: A folder where everyone may write, and replace files of others.
    shared: Path
    #: A folder where everyone may write, as in /tmp.
    temporary: Path


@pytest.fixture(scope="session")
def people():
    """Yield two users, and an interpreter that both can run."""
    root = users.make_root()
    found = []
    try:
        found.extend(map(users.add_user, ("victim", "attacker")))
        if (python := users.readable_python(found[0][1], root)) is None:
            pytest.skip("needs a Python of this version that other users can start, such as Debian's python3")
        yield found, python
    finally:
        for name, _, _ in found:
            users.remove_user(name)
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def made_world(people):
    """Create homes for the users and folders that they share; afterwards, terminate all of their processes."""
    (victim, attacker), python = people
    root = users.make_root()
    shared, temporary = root / "shared", root / "tmp"
    for folder, mode in ((shared, 0o777), (temporary, 0o1777)):
        folder.mkdir()
        folder.chmod(mode)

    def user(name, uid, gid):
        home = root / name.split("-")[1]
        home.mkdir()
        os.chown(home, uid, gid)
        environment = {
            **{"HOME": str(home), "USER": name, "TMPDIR": str(temporary), "PATH": f"{python.parent}:/usr/bin:/bin"},
            **{"LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "200"},
            **{"JOBMON__HTTP__REQUEST_TIMEOUT": "3", "JOBMON__HTTP__RETRIES_TIMEOUT": "5"},
        }
        return users.User(name, uid, gid, home, python, environment)

    administrator = user("jmsec-administrator", os.geteuid(), os.getegid())
    there = World(user(*victim), user(*attacker), administrator, root, shared, temporary)
    try:
        yield there
    finally:
        there.attacker.end_started()
        there.victim.end_started()
        there.administrator.end_started()
        for one in (there.attacker, there.victim):
            one.end(there.root)
        shutil.rmtree(root)


@pytest.fixture
def world(people):
    """Yield a separate world for one attack."""
    with made_world(people) as there:
        yield there


@pytest.fixture(scope="module")
def serving(people):
    """Yield a world with a running server of the victim, for attacks that do not change it."""
    with made_world(people) as there:
        assert there.victim.jobmon("server", "start").returncode == 0
        yield there


@pytest.fixture(scope="session")
def access_file(people):
    """Return the content of the access file of the victim's server, as a template for planted files."""
    with made_world(people) as there:
        assert there.victim.jobmon("server", "start").returncode == 0
        yield there.victim.access()
