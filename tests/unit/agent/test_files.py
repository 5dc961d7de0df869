"""Declared files are found on disk, and waited for while their file system may not show them yet."""

import os
import time

import pytest

from jobmon.agent import files
from jobmon.agent.files import FileSearches, find, latency_wait_seconds


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.csv").write_text("12345")
    (tmp_path / "b.csv").write_text("123")
    (tmp_path / ".hidden.csv").write_text("1")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.txt").write_text("12")
    os.utime(tmp_path / "a.csv", ns=(0, 2_000_000))
    os.utime(tmp_path / "b.csv", ns=(0, 7_000_000))
    return tmp_path


def test_what_is_found_is_described(folder):
    found = find([f"{folder}/a.csv", f"{folder}/*.csv", f"{folder}/p*/x.*"])
    assert not found.missing
    assert found.seen[:2] == [(f"{folder}/a.csv", 1, 5, 2_000), (f"{folder}/*.csv", 2, 8, 7_000)]
    assert found.seen[2][:3] == (f"{folder}/p*/x.*", 1, 2)


def test_a_folder_is_not_a_file_and_counts_no_bytes(folder):
    found = find([f"{folder}/parts/", f"{folder}/a.csv/", f"{folder}/p*/"])
    assert [one[:3] for one in found.seen] == [(f"{folder}/parts/", 1, 0), (f"{folder}/p*/", 1, 0)]
    assert found.missing == f"{folder}/a.csv/"


@pytest.mark.parametrize("path", ["none", "*.txt", "none/*/x", "a.csv/x", "x" * 300, "\udc80\0"])
def test_the_first_missing_file_is_named(folder, path):
    found = find([f"{folder}/a.csv", f"{folder}/{path}", f"{folder}/other"])
    assert found.missing == f"{folder}/{path}"
    assert len(found.seen) == 1


def collected(searches):
    deadline = time.monotonic() + 20.0
    while not (found := searches.collect()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def test_a_file_that_appears_late_is_found(folder):
    searches = FileSearches()
    searches.start(7, [f"{folder}/late"])
    assert searches.collect() == []
    (folder / "late").write_text("1")
    [(identity, found)] = collected(searches)
    assert (identity, found.missing) == (7, "")


def test_a_file_is_missing_once_the_wait_is_over(folder):
    searches = FileSearches()
    searches.latency_wait_seconds = 0.2
    began = time.monotonic()
    searches.start(7, [f"{folder}/a.csv", f"{folder}/never"])
    [(identity, found)] = collected(searches)
    assert (identity, found.missing, len(found.seen)) == (7, f"{folder}/never", 1)
    assert time.monotonic() - began >= searches.latency_wait_seconds


def test_a_search_that_waits_does_not_hold_up_another_and_can_be_cancelled(folder):
    searches = FileSearches()
    searches.start(7, [f"{folder}/never"])
    searches.start(8, [f"{folder}/a.csv"])
    assert [identity for identity, _ in collected(searches)] == [8]
    assert searches.cancel(7)
    assert not searches.cancel(7)
    assert searches.collect() == []


def test_a_worker_learns_from_its_environment_how_long_to_wait():
    assert latency_wait_seconds({}) == files.LATENCY_WAIT_SECONDS
    assert latency_wait_seconds({"JOBMON__FILES__LATENCY_WAIT": "2.5"}) == 2.5
