"""The meaning of exits of commands, and the location of their output."""

import pytest

from jobmon.agent import outcome, outputs

GIB = 1024**3
KERNEL = "the kernel killed it or one of its processes"


@pytest.mark.parametrize(
    ("exit_code", "signal", "cause", "expected"),
    [
        (0, None, None, ("D", None, None)),
        (3, None, None, ("E", "exit code", "exit code 3: last")),
        (None, 9, None, ("E", "signal", "killed by signal 9 (SIGKILL): last")),
        (None, 63, None, ("E", "signal", "killed by signal 63: last")),
        (0, None, "killed", ("E", "killed", "killed: exit code 0")),
        (None, 15, "killed for resume", ("E", "killed for resume", "killed for resume: killed by signal 15 (SIGTERM)")),
        (None, 2, "out of time", ("Z", "out of time", "out of time after 3.0 s: last")),
        (0, None, "out of memory", ("Z", "out of memory", f"out of memory: {KERNEL} (exit code 0): last")),
    ],
)
def test_exits(exit_code, signal, cause, expected):
    assert outcome.judge(exit_code, signal, cause, 3.0, "last") == expected


@pytest.mark.parametrize(
    ("peak", "sentence"),
    [
        (2 * GIB, "out of memory: it used 2.000 GiB, but requested 1.000 GiB"),
        (GIB, "out of memory: it needed more than the 1.000 GiB that it requested"),
        (None, "out of memory: it needed more than the 1.000 GiB that it requested"),
    ],
)
def test_memory_that_was_asked_for(peak, sentence):
    assert outcome.judge(None, 9, "out of memory", 3.0, "", GIB, peak)[2] == sentence


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        ({}, ("/logs/12/a_b.12345.log",) * 2),
        ({"stdout": "/o"}, ("/o/a_b.12345.log",) * 2),
        ({"stderr": "/e"}, ("/e/a_b.12345.log",) * 2),
        ({"stdout": "/o", "stderr": "/e"}, ("/o/a_b.12345.out", "/e/a_b.12345.err")),
    ],
)
def test_output_files(asked, paths):
    assert outputs.output_files(asked, "a/b", 12_345, "/logs") == paths


def test_the_end_of_two_files_is_that_of_the_errors_unless_there_are_none(tmp_path):
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_bytes(b"x" * 100 + b"end")
    err.touch()
    assert outputs.tail(str(out), str(err), 3) == b"end"
    err.write_bytes(b"bad")
    assert outputs.tail(str(out), str(err), 3) == b"bad"
    assert outputs.tail(str(tmp_path / "none"), None) == b""
