"""The program that each task of a recording runs, as a process."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from pathlib import Path

from jobmon.client.wfformat import burner


def run(folder, scale, lines):
    """Write a job file and run the first line of it."""
    (folder / "files").mkdir(exist_ok=True)
    (folder / "jobs").write_bytes(b"".join(lines))
    task = lines[0].split(b"\t")[0].decode()
    return subprocess.run(
        [sys.executable, "-I", "-S", burner.__file__, str(folder / "jobs"), "0", str(scale), task],
        capture_output=True,
        text=True,
        check=False,
    )


def test_writes_scaled_outputs_where_they_were_recorded(tmp_path):
    line = burner.job_line("a task", 0, 1, [], [("deep/er/o ' ut.txt", 3_000_000), ("empty", 0), ("tiny", 3)])
    finished = run(tmp_path, 0.5, [line])
    assert (finished.returncode, finished.stderr) == (0, "")
    files = tmp_path / "files"
    found = {str(path.relative_to(files)): path.stat().st_size for path in files.rglob("*") if path.is_file()}
    assert found == {"deep/er/o ' ut.txt": 1_500_000, "empty": 0, "tiny": 2}


def test_missing_and_torn_inputs_fail_with_a_sentence_each(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "torn").write_bytes(b"1234")
    (tmp_path / "files" / "whole").write_bytes(b"12345678")
    line = burner.job_line("t", 0, 1, [("whole", 8), ("gone", 1), ("torn", 8)], [("out", 1)])
    finished = run(tmp_path, 1, [line])
    assert finished.returncode == burner.EXIT_BAD_INPUT
    assert finished.stderr.splitlines() == [
        "input gone: No such file or directory",
        "input torn has 4 bytes instead of 8",
    ]
    assert not (tmp_path / "files" / "out").exists()


def test_takes_its_time_and_its_share_of_the_core(tmp_path):
    """On a busy machine a process gets less CPU time than requested, so only an upper bound is checked."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    assert run(tmp_path, 0.02, [burner.job_line("t", 40, 0.25, [], [])]).returncode == 0
    elapsed = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert elapsed >= 0.8
    assert used <= 0.6  # a quarter of 0.8 s, and what the interpreter takes to start


def test_more_than_one_core_is_burnt_by_several_processes(tmp_path):
    command = [sys.executable, "-I", "-S", burner.__file__, str(tmp_path / "jobs"), "0", "1", "t"]
    (tmp_path / "files").mkdir()
    (tmp_path / "jobs").write_bytes(burner.job_line("t", 1, 1.2, [], []))
    seen = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                seen = max(seen, len(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
            time.sleep(0.02)
    assert (process.returncode, seen) == (0, 1)


def test_refuses_the_jobs_of_another_run(tmp_path):
    (tmp_path / "jobs").write_bytes(burner.job_line("other", 0, 1, [], []))
    command = [sys.executable, "-I", "-S", burner.__file__, str(tmp_path / "jobs"), "0", "1", "mine"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "written for another run" in finished.stderr


def test_scaled_sizes():
    assert [burner.scaled_bytes(size, 0.001) for size in (0, 1, 499, 1500, -4)] == [0, 1, 1, 2, 0]
