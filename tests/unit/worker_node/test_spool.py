"""Reports on disk: delivered once, in order; a damaged one is put aside and holds nobody up."""

from __future__ import annotations

import stat

import pytest

from jobmon.worker_node import spool


@pytest.mark.parametrize("damage", [b"", b'{"reports": [{"task_inst', b"\xff\xfe\x00", b"[1, 2]", b"null"])
def test_a_corrupted_spool_file_is_put_aside_and_the_others_are_delivered(tmp_path, damage):
    spool.keep(str(tmp_path), 1, {"number": 1})
    spool.keep(str(tmp_path), 3, {"number": 3})
    (tmp_path / f"2{spool.SUFFIX}").write_bytes(damage)
    delivered = []
    assert spool.replay(str(tmp_path), lambda message: delivered.append(message) is None) == 2
    assert delivered == [{"number": 1}, {"number": 3}]
    (left,) = tmp_path.iterdir()
    assert (left.name, left.read_bytes()) == (f"2{spool.SUFFIX}{spool.DAMAGED_SUFFIX}", damage)
    assert spool.replay(str(tmp_path), lambda message: True) == 0


def test_what_cannot_be_read_now_stays(tmp_path):
    (tmp_path / f"1{spool.SUFFIX}").mkdir()  # reading it fails
    spool.keep(str(tmp_path), 2, {"number": 2})
    assert spool.replay(str(tmp_path), lambda message: True) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"1{spool.SUFFIX}"]


def test_what_cannot_be_delivered_stays_and_is_private(tmp_path):
    path = spool.keep(str(tmp_path), 1, {"number": 1})
    assert spool.replay(str(tmp_path), lambda message: False) == 0
    (left,) = tmp_path.iterdir()
    assert str(left) == path
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
