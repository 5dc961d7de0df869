"""The location of an attempt's output."""

from __future__ import annotations

import os

import pytest

from jobmon.agent.outputs import opened, output_files

LOG = "fit_x.12345.log"


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        ({}, (f"/l/12/{LOG}",) * 2),
        ({"stdout": "/o"}, (f"/o/{LOG}",) * 2),
        ({"stdout": "/o/"}, (f"/o/{LOG}",) * 2),
        ({"stdout": "/"}, (f"/{LOG}",) * 2),
        ({"stderr": "/e"}, (f"/e/{LOG}",) * 2),
        ({"stdout": "/o", "stderr": "/e"}, ("/o/fit_x.12345.out", "/e/fit_x.12345.err")),
        ({"stdout": "/o/all.log"}, ("/o/all.log",) * 2),
        ({"stdout": "/o/all.log/"}, (f"/o/all.log/{LOG}",) * 2),
        ({"stdout": "/o/v1.2"}, (f"/o/v1.2/{LOG}",) * 2),
        ({"stdout": "/o/.hidden"}, (f"/o/.hidden/{LOG}",) * 2),
        ({"stdout": "/dev/null"}, ("/dev/null",) * 2),
        ({"stdout": "/dev/null", "stderr": "/e"}, ("/dev/null", "/e/fit_x.12345.err")),
        ({"stdout": "/o/a.out", "stderr": "/o/a.err"}, ("/o/a.out", "/o/a.err")),
    ],
)
def test_a_file_or_a_folder(resources, files):
    assert output_files(resources, "fit/x", 12_345, "/l") == files


def test_a_long_name_is_cut():
    assert output_files({"stdout": "/o"}, "n" * 250, 1, "/l")[0] == f"/o/{'n' * 60}.1.log"


def test_attempts_append_to_a_file_that_they_share_and_empty_their_own(tmp_path):
    for name, kept in (("all.log", b"12"), ("fit.7.log", b"2"), ("sub/all.log", b"12")):
        path = tmp_path / name
        for text in (b"1", b"2"):
            descriptor, same = opened(str(path), None)
            assert descriptor == same
            os.write(descriptor, text)
            os.close(descriptor)
        assert path.read_bytes() == kept
