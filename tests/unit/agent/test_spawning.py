"""Programs are started without the interpreter lock, and in the same way as with it."""

import json
import os
import sys
import threading

import pytest

from jobmon.agent import spawning

SHOWS = (
    "import json, os, signal, sys\n"
    "json.dump([sys.argv[1], os.environ['WORD'], os.getpgrp() == os.getpid(),"
    " sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), os.readlink('/proc/self/fd/0')], sys.stdout)\n"
    "sys.stdout.flush(); sys.stderr.write('oops')\n"
)


@pytest.fixture(params=["library", "interpreter"])
def spawn(request):
    return spawning._Library().spawn if request.param == "library" else spawning._spawn_with_lock


@pytest.fixture
def files(tmp_path):
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("out", "err")]
    yield opened
    for file in opened:
        os.close(file)


def test_what_a_program_is_given(spawn, files, tmp_path):
    environment = spawning.variables({"WORD": "größe=1", "PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8"})
    pid = spawn([sys.executable, "-I", "-c", SHOWS, "a b\n"], environment, *files)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert json.loads((tmp_path / "out").read_text()) == ["a b\n", "größe=1", True, [], "/dev/null"]
    assert (tmp_path / "err").read_text() == "oops"


def test_signals_that_python_ignores_are_not_ignored(spawn, files, tmp_path):
    assert os.waitpid(spawn(["grep", "SigIgn", "/proc/self/status"], {}, *files), 0)[1] == 0
    ignored = int((tmp_path / "out").read_text().split()[1], 16)
    assert [number for number in spawning.RESET if ignored & 1 << (number - 1)] == []


def test_a_program_is_found_on_the_path_and_another_is_an_error(spawn, files):
    assert os.waitpid(spawn(["true"], {}, *files), 0)[1] == 0
    with pytest.raises(FileNotFoundError):
        spawn(["no-such-program"], {}, *files)
    with pytest.raises(OSError, match="too long"):
        spawn(["true", "x" * 3_000_000], {}, *files)
    with pytest.raises(ValueError, match="null"):
        spawn(["true", "\0"], {}, *files)


def test_a_variable_with_nul_is_an_error():
    with pytest.raises(ValueError, match="null"):
        spawning.variables({"A": "\0"})


def test_other_threads_run_while_the_kernel_starts_a_program(files, tmp_path):
    """The kernel opens its standard input first: a pipe that waits for a writer."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    spawn, found = spawning._Library(), []
    actions = spawn._structure()
    spawn._check(spawn._actions_init, actions)
    spawn._check(spawn._add_open, actions, 0, os.fsencode(pipe), os.O_RDONLY, 0)
    spawn._actions[files[0], files[1]] = actions
    thread = threading.Thread(target=lambda: found.append(spawn.spawn(["true"], {}, *files)))
    thread.start()
    writer = os.open(pipe, os.O_WRONLY)  # reached only if the other thread does not hold the lock
    thread.join(30)
    os.close(writer)
    assert os.waitpid(found[0], 0)[1] == 0
