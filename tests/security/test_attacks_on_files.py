"""Files and folders that another user planted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import threading

import pytest
from tests.security import users
from tests.security.users import free_port, wait_until

from jobmon.core import paths

EXIT_REFUSED = 3
MODULES = (
    "uvloop",
    "yaml",
    "queue",
    "random",
    "msgspec",
    "aiohttp",
    "rich",
    "sqlalchemy",
    "secrets",
    "httptools",
    "json",
)


def test_control_a_workflow_runs(world):
    assert "status D" in world.victim.workflow().stdout
    assert world.victim.jobmon("server", "stop").returncode == 0


# --- the working folder -----------------------------------------------------------------------------------------------


def test_planted_modules_in_the_working_folder(world):
    proof = world.shared / "proof"
    for name in MODULES:
        world.attacker.file(
            world.shared / f"{name}.py", f"open({str(proof)!r}, 'a').write(__name__)\nraise ImportError\n"
        )
    assert "status D" in world.victim.workflow(cwd=world.shared).stdout
    assert not proof.exists()


@pytest.mark.parametrize("owner", ["attacker", "victim"])
def test_planted_a_shell_by_settings_in_the_working_folder(world, owner):
    """The victim's own file represents a cloned repository: the attacker wrote its content."""
    proof = world.shared / "proof"
    shell = world.attacker.file(world.shared / "sh", f'#!/bin/sh\nid > {proof}\nexec /bin/sh "$@"\n', 0o755)
    folder = world.shared
    if owner == "victim":
        folder = world.victim.folder(world.victim.home / "clone")
    getattr(world, owner).file(folder / "jobmon.yaml", f"worker_node:\n  shell: {shell}\n")
    ran = world.victim.workflow(cwd=folder)
    assert "status D" in ran.stdout
    assert ran.stdout.count(str(folder / "jobmon.yaml")) == 1
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "endless", "dangling link", "own file", "sticky folder"])
def test_planted_something_else_as_the_settings_in_the_working_folder(world, kind):
    """No program waits for it, reads it or follows it; a file of the victim may be linked there under that name."""
    folder, proof = world.shared, world.shared / "proof"
    if kind == "sticky folder":
        folder = world.temporary
    path = folder / "jobmon.yaml"
    settings = f"worker_node:\n  shell: {proof}\nhttp:\n  service_url: http://127.0.0.1:1\n"
    if kind == "pipe":
        os.mkfifo(path, 0o666)
    elif kind == "socket":
        world.attacker.listen(path)
    elif kind == "folder":
        world.attacker.folder(path)
    elif kind in ("own file", "sticky folder"):
        os.link(world.victim.file(world.victim.home / "notes", settings), path)
    else:
        world.attacker.link(path, "/dev/zero" if kind == "endless" else world.victim.home / "none")
    before = path.lstat()
    ran = world.victim.jobmon("config", "show", cwd=folder)
    assert ran.returncode == 0, ran.stdout
    assert "127.0.0.1:1" not in ran.stdout
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not (world.victim.home / "none").exists()


@pytest.mark.parametrize("kind", ["file", "pipe", "link", "parent"])
def test_planted_the_settings_that_the_environment_names(world, kind):
    path = world.shared / "settings.yaml"
    if kind == "pipe":
        os.mkfifo(path)
        world.attacker.give(path, 0o666)
    elif kind == "link":
        world.attacker.link(path, world.attacker.file(world.attacker.home / "s.yaml", "http: {}\n"))
    elif kind == "file":
        world.attacker.file(path, "http: {}\n")
    else:
        world.victim.file(path, "http: {}\n", 0o600)
    ran = world.victim.jobmon("workflow", "status", JOBMON_CONFIG_FILE=str(path))
    assert ran.returncode == (2 if kind == "pipe" else EXIT_REFUSED)
    assert str(world.shared) in ran.stdout


@pytest.mark.parametrize("completes", [False, True], ids=["command", "completion"])
def test_planted_an_address_in_the_working_folder(world, completes):
    """The victim's token would be sent there, and what answers would decide which commands run."""
    port = free_port()
    heard = world.attacker.listen(port)
    world.attacker.file(world.shared / "jobmon.yaml", f"http:\n  service_url: http://127.0.0.1:{port}\n")
    environment = {"JOBMON__HTTP__TOKEN": "token-of-the-victim"}
    if completes:
        words = {"_JOBMON_COMPLETE": "bash_complete", "COMP_WORDS": "jobmon workflow errors -w ", "COMP_CWORD": "4"}
        world.victim.jobmon(cwd=world.shared, **environment, **words)
    else:
        world.victim.jobmon("workflow", "status", cwd=world.shared, **environment)
    assert heard.read_bytes() == b""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o606], ids=oct)
def test_read_or_replaced_a_token_in_the_settings(world, mode):
    path = world.victim.file(world.victim.home / ".jobmon.yaml", "http:\n  token: secret\n", mode)
    commands = (("workflow", "status"), ("doctor",), ("config", "show"))
    for words in commands if mode == 0o644 else commands[:1]:
        ran = world.victim.jobmon(*words)
        assert ran.returncode != 0
        assert str(path) in ran.stdout
        assert "chmod" in ran.stdout
    assert stat.S_IMODE(path.stat().st_mode) == mode


# --- the data folder --------------------------------------------------------------------------------------------------


@pytest.fixture
def listening(world, access_file):
    """A server of the attacker's, and the victim's access file to make a planted one from."""
    port = free_port()
    heard = world.attacker.listen(port)
    pid = world.attacker.started[0].pid
    start = paths.process_start_time(pid)
    planted = {"pid": pid, "pid_start_time": start, "address": f"http://127.0.0.1:{port}", "socket": ""}
    return heard, {**access_file, **planted, "running": True}


@pytest.mark.parametrize("way", ["folder", "parent", "link", "file", "file mode", "file link", "writable folder"])
def test_planted_an_access_file(world, listening, way):
    """A server of the attacker's decides what runs as the victim."""
    heard, access = listening
    content = json.dumps(access)
    planted_by = world.attacker if way in ("folder", "link", "file", "file link") else world.victim
    folder = world.shared / "data"
    if way == "parent":
        parent = world.victim.folder(world.shared / "p", 0o777)
        folder = parent / "data"
    planted_by.folder(folder, 0o777 if way == "writable folder" else 0o755)
    if way == "file":
        world.victim.give(folder, 0o700)
    path = folder / "server.json"
    if way == "file link":
        world.attacker.file(folder / "elsewhere", content, 0o600)
        world.attacker.link(path, folder / "elsewhere")
        world.victim.give(folder, 0o700)
    else:
        planted_by.file(path, content, 0o666 if way == "file mode" else 0o600 if way != "folder" else 0o644)
    data = folder
    if way == "link":
        data = world.attacker.link(world.temporary / "data", folder)
    before = path.lstat().st_mode, folder.stat().st_mode
    status = world.victim.jobmon("workflow", "status", JOBMON_DATA_DIR=str(data))
    assert status.returncode == EXIT_REFUSED
    assert str(world.root) in status.stdout
    assert "status D" not in world.victim.workflow(JOBMON_DATA_DIR=str(data)).stdout
    assert heard.read_bytes() == b""
    assert (path.lstat().st_mode, folder.stat().st_mode) == before


@pytest.mark.parametrize("way", ["group", "list", "default list of the parent"])
def test_shared_a_data_folder_by_other_means_than_its_mode(world, way):
    """Rights of a group that has others in it, or of an access control list, which shows as the group's."""
    folder = world.victim.folder(world.root / "data", 0o770)
    if way == "group":
        os.chown(folder, world.victim.uid, world.attacker.gid)
    else:
        entries = [(1, 7, -1), (2, 7, world.attacker.uid), (4, 0, -1), (16, 7, -1), (32, 0, -1)]
        content = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        parent = world.victim.folder(world.root / "parent", 0o700)
        is_of_parent = way != "list"
        try:
            os.setxattr(parent, "system.posix_acl_default", content)
            os.setxattr(parent if is_of_parent else folder, "system.posix_acl_access", content)
        except OSError as error:
            pytest.skip(f"this file system has no access control lists: {error}")
        folder = parent / "data" if is_of_parent else folder
    ran = world.victim.jobmon("workflow", "status", JOBMON_DATA_DIR=str(folder))
    assert ran.returncode == EXIT_REFUSED, ran.stdout
    assert str(world.root) in ran.stdout
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "endless", "hard link"])
def test_planted_something_else_as_an_access_file(world, access_file, kind):
    """The victim's folder is his own again; what was put there before is neither waited for nor believed."""
    folder = world.victim.folders(world.victim.data())
    path = folder / "server.json"
    if kind == "pipe":
        os.mkfifo(path)
        world.attacker.give(path, 0o600)
    elif kind == "endless":
        world.attacker.link(path, "/dev/zero")
    else:
        os.link(world.attacker.file(world.attacker.home / "theirs", json.dumps(access_file), 0o600), path)
    ran = world.victim.jobmon("workflow", "status")
    assert ran.returncode == EXIT_REFUSED, ran.stdout
    assert str(path) in ran.stdout


def test_planted_a_data_folder_before_the_first_run(world):
    folder = world.attacker.folder(world.shared / "data", 0o777)
    ran = world.victim.workflow(JOBMON_DATA_DIR=str(folder))
    assert "status D" not in ran.stdout
    assert str(world.shared) in ran.stdout
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022], ids=oct)
def test_looked_for_files_that_others_may_read_or_write(world, umask):
    world.victim.jobmon("server", "start", umask=umask)
    assert world.victim.jobmon("server", "stop", umask=umask).returncode == 0
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in world.victim.home.rglob("*") if not path.is_symlink()}
    assert found
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o022} == {}
    assert {path: oct(mode) for path, mode in found.items() if path.is_file() and mode & 0o077} == {}
    assert world.attacker.run("ls", world.victim.data()).returncode != 0


def test_looked_into_the_database_of_a_server_for_several(world):
    folder = world.victim.folder(world.root / "institute", 0o755)
    words = (world.victim.python, "-P", "-m", "jobmon.server", "--db", f"sqlite:///{folder}/inst.sqlite")
    server = world.victim.start(*words, JOBMON__HTTP__TOKEN="secret")
    for suffix in ("", "-wal", "-shm", ".lock"):
        path = folder / f"inst.sqlite{suffix}"
        modes = []

        def is_seen(path=path, modes=modes):  # the log is removed and made again while the schema is created
            with contextlib.suppress(FileNotFoundError):
                modes.append(stat.S_IMODE(path.stat().st_mode))
            return bool(modes)

        wait_until(is_seen, users.COMMAND_SECONDS_MAX)
        assert modes[0] & 0o077 == 0
        assert world.attacker.run("cat", path).returncode != 0
    server.send_signal(signal.SIGTERM)
    server.wait(20)


# --- the runtime folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "link", "login folder"])
def test_took_the_runtime_folder(world, kind):
    runtime = world.temporary / f"jobmon-{world.victim.uid}"
    environment = {}
    target = world.victim.folder(world.victim.home / "public", 0o755)
    if kind == "folder":
        world.attacker.folder(runtime, 0o777)
    elif kind == "file":
        world.attacker.file(runtime)
    elif kind == "link":
        world.attacker.link(runtime, target)
    else:
        login = world.attacker.folder(world.root / "run", 0o777)
        world.attacker.folder(login / "jobmon", 0o777)
        environment = {"XDG_RUNTIME_DIR": str(login)}
    assert "status D" in world.victim.workflow(**environment).stdout
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert list(target.iterdir()) == []
    text = world.victim.jobmon("doctor", **environment).stdout
    taken = environment.get("XDG_RUNTIME_DIR", str(runtime))
    assert ", because " in text
    assert taken in text.partition(", because ")[2].partition("\n")[0]


def test_listened_at_the_socket_of_a_server_on_another_host(world, access_file):
    """The path in the access file means something on the server's host only."""
    access = {**access_file, "address": f"http://127.0.0.1:{free_port()}"}
    world.victim.folders(world.victim.data())
    runtime = world.attacker.folder(world.temporary / "theirs", 0o755)
    heard = world.attacker.listen(runtime / "server.sock")
    path = world.victim.data() / "server.json"
    planted = {"socket": str(runtime / "server.sock"), "running": True}
    for changes in ({"boot_id": "another"}, {"boot_id": "another", "machine_id": "another", "host": "login2"}):
        world.victim.file(path, json.dumps({**access, **planted, **changes}), 0o600)
        world.victim.jobmon("workflow", "status", JOBMON__HTTP__RETRIES_TIMEOUT="1")
        assert heard.read_bytes() == b""


def test_listened_at_the_socket_of_a_living_server(world):
    """A logout removed the runtime folder, and the attacker made it again."""
    world.victim.jobmon("server", "start")
    access = world.victim.access()
    heard = world.attacker.listen(world.attacker.folder(world.temporary / "theirs", 0o755) / "server.sock")
    changed = {**access, "socket": str(world.temporary / "theirs" / "server.sock")}
    world.victim.file(world.victim.data() / "server.json", json.dumps(changed), 0o600)
    assert world.victim.jobmon("workflow", "status").returncode == 0
    assert heard.read_bytes() == b""
    world.victim.file(world.victim.data() / "server.json", json.dumps(access), 0o600)


def test_took_the_port_of_a_dead_server(world):
    """The access file still names it, and it is tried first."""
    world.victim.jobmon("server", "start")
    access = world.victim.access()
    os.kill(access["pid"], signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{access['pid']}"))
    heard = world.attacker.listen(int(access["address"].rpartition(":")[2]))
    assert world.victim.jobmon("workflow", "status").returncode == 0
    assert heard.read_bytes() == b""


# --- outputs and reports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "link in a sticky folder"])
def test_planted_output_files(world, kind):
    """Their names can be guessed."""
    folder = world.temporary if kind == "link in a sticky folder" else world.shared
    precious = world.victim.file(world.victim.home / "precious", "precious\n")
    for number in range(1, 20):
        for suffix in ("log", "out", "err"):
            path = folder / f"align.{number}.{suffix}"
            if kind.startswith("link"):
                world.attacker.link(path, precious)
            elif kind == "hard link":
                os.link(precious, path)
            else:
                os.mkfifo(path)
                world.attacker.give(path, 0o666)
    ran = world.victim.workflow(resources={"stdout": str(folder)})
    assert precious.read_text() == "precious\n"
    assert "status" in ran.stdout, "it does not wait for ever"


def test_planted_an_output_file_to_read_what_is_written(world):
    for number in range(1, 20):
        world.attacker.file(world.shared / f"align.{number}.log", mode=0o666)
    world.victim.workflow("echo the secret", resources={"stdout": str(world.shared)})
    for path in world.shared.iterdir():
        if path.stat().st_uid == world.attacker.uid:
            assert "secret" not in path.read_text()


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "file", "link to the folder"])
def test_planted_an_output_file_of_a_name_that_the_victim_chose(world, kind):
    """Attempts append to such a file, so it may exist; but nobody else may have put it there."""
    home, path = world.victim.home, world.shared / "all.log"
    precious = world.victim.file(home / "all.log", "precious\n", 0o600)
    if kind == "pipe":
        os.mkfifo(path)
        world.attacker.give(path, 0o666)
    elif kind == "hard link":
        os.link(precious, path)
    elif kind == "file":
        world.attacker.file(path, mode=0o666)
    elif kind == "link to the folder":
        path = world.attacker.link(world.shared / "run1", home) / "all.log"
    else:
        world.attacker.link(path, precious if kind == "link" else home / ".profile")
    ran = world.victim.workflow("echo the secret", resources={"stdout": str(path)})
    assert "status E" in ran.stdout
    assert "cannot be written" in ran.stdout
    assert precious.read_text() == "precious\n"
    assert not (home / ".profile").exists()
    assert kind != "file" or path.read_text() == ""


def test_control_a_chosen_output_file_may_be_a_device_or_behind_a_link_of_ones_own(world):
    home = world.victim.home
    folder = world.victim.link(home / "logs", world.victim.folder(home / "scratch"))
    assert "status D" in world.victim.workflow(resources={"stdout": str(folder / "all.log")}).stdout
    assert (home / "scratch" / "all.log").read_text() == "hello\n"
    assert "status D" in world.victim.workflow(name="two", resources={"stdout": "/dev/null"}).stdout


@pytest.mark.parametrize("way", ["renamed", "hard link"])
def test_put_another_file_of_the_victim_where_the_output_was(world, way):
    """The end of the output is recorded, and on a shared server others may read it."""
    place = world.shared if way == "renamed" else world.victim.home
    secret = world.victim.file(place / "key", "the secret\n", 0o600)
    swapped = world.shared / "swapped"

    def swap():
        (log,) = wait_until(lambda: list(world.shared.glob("align.*.log")))
        if way == "renamed":
            secret.rename(log)
        else:
            log.unlink()
            os.link(secret, log)
        swapped.touch()

    swapping = threading.Thread(target=swap)
    swapping.start()
    command = f"while [ ! -e {swapped} ]; do sleep 0.05; done; exit 3"
    ran = world.victim.workflow(command, resources={"stdout": str(world.shared)})
    swapping.join()
    assert "status E" in ran.stdout
    for words in (("workflow", "errors", "-w", "1"), ("task", "status", "1")):
        assert "the secret" not in world.victim.jobmon(*words).stdout


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "link to the unfinished file"])
def test_planted_the_file_of_a_report(world, kind):
    """Its name can be guessed: a report is written to the working folder."""
    world.victim.workflow()
    precious = world.victim.file(world.victim.home / "precious", "precious\n", 0o600)
    path = world.shared / "workflow-1.html"
    if kind == "pipe":
        os.mkfifo(path)
        world.attacker.give(path, 0o666)
    elif kind == "link to the unfinished file":
        world.attacker.link(world.shared / ".workflow-1.html.part", precious)
    else:
        world.attacker.link(path, precious if kind == "link" else world.victim.home / ".profile")
    ran = world.victim.jobmon("workflow", "report", "1", cwd=world.shared)
    assert ran.returncode == (0 if kind == "link to the unfinished file" else EXIT_REFUSED), ran.stdout
    assert precious.read_text() == "precious\n"
    assert not (world.victim.home / ".profile").exists()


def test_planted_a_link_where_settings_are_written(world):
    program = world.victim.file(world.victim.home / "program", mode=0o755)
    for name, target in (("1.yaml", program), ("2.yaml", world.victim.home / ".profile")):
        path = world.attacker.link(world.shared / name, target)
        for words in (("login", "--forget"), ("config", "set", "http.request_timeout", "30")):
            assert world.victim.jobmon(*words, "--config-file", path).returncode == EXIT_REFUSED
    assert (program.stat().st_mode & 0o777, program.read_text()) == (0o755, "")
    assert not (world.victim.home / ".profile").exists()


@pytest.mark.parametrize("place", ["shared folder", "reports"])
def test_planted_a_report(world, place):
    """A task that never ran would count as done."""
    forged = {"reports": [{"task_instance_id": 4711, "status": "D", "exit_code": 0, "log_tail": "forged"}], "alive": []}
    folder = world.shared
    if place == "reports":
        reports = world.victim.folder(world.victim.home / "reports", 0o777)
        folder = world.attacker.folder(reports / "1", 0o755)
    planted = world.attacker.file(folder / "9.report", json.dumps(forged))
    posts = _worker(world, world.shared)
    assert any(b'"D"' in post for post in posts), "it reports its own end"
    assert not [post for post in posts if b"4711" in post]
    assert planted.exists()


def _worker(world, folder):
    """Run a worker of attempt 1 whose output goes to a folder; return what it posted."""
    start = {
        **{"task_instance_id": 1, "task_id": 1, "workflow_id": 1, "workflow_run_id": 1, "task_name": "t", "attempt": 1},
        **{"command": "echo x", "requested_resources": {"cores": 1, "stdout": str(folder)}, "umask": 18},
        **{"working_directory": "/tmp", "heartbeat_interval": 90.0, "report_by_buffer": 3.1},
    }
    posts = []

    def answer(line):
        line.settimeout(20)
        with line, contextlib.suppress(OSError):
            while data := line.recv(1 << 20):
                posts.append(data)
                body = json.dumps(start).encode() if b"/worker/start" in data else b'{"kill":[]}'
                line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve():
            try:
                while True:
                    threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{door.getsockname()[1]}"
        # without a token: our stand-in for a server cannot prove that it knows one
        environment = {"JOBMON_SERVICE_URL": address, "JOBMON_DATA_DIR": str(world.victim.home)}
        world.victim.run(*world.victim.worker(), **environment)
        door.shutdown(socket.SHUT_RDWR)
    return posts


# --- what processes inherit -------------------------------------------------------------------------------------------


def test_looked_for_descriptors_that_a_script_left_open(world):
    """The idiom of cron: what lives on after a script must not hold its lock."""
    lock = world.victim.file(world.victim.home / "lock")
    world.victim.workflow()  # writes the script
    words = f"exec 9>{lock}; flock -n 9 || exit 9; {world.victim.python} {world.victim.home}/wf.py 'echo' two '{{}}'"
    assert world.victim.jobmon("server", "stop").returncode == 0
    assert "status D" in world.victim.run("sh", "-c", words).stdout
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
