"""Build a workflow from a recording: names, cores, files, and the comparison after the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobmon.client.wfformat import BuildOptions, RecordedTask, compare, cores_of, parse_recording, prepare_directory
from jobmon.client.wfformat.builder import task_name
from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def recorded(percent):
    return RecordedTask(
        task_id="t",
        category="c",
        parents=(),
        input_files=(),
        output_files=(),
        runtime_seconds=1.0,
        cpu_percent=percent,
    )


@pytest.mark.parametrize(
    ("percent", "cores_max", "cores"),
    [(100.0, 8, 1), (100.5, 8, 1), (174.9, 8, 2), (174.9, 1, 1), (350.0, 2, 2), (0.0, 8, 1), (None, 8, 1)],
)
def test_cores(percent, cores_max, cores):
    assert cores_of(recorded(percent), cores_max) == cores


@pytest.mark.parametrize(
    ("task_id", "name"), [("mProject_ID1", "mProject_ID1"), ("a/b 'c'", "a_b__c_"), ("12", "task_12")]
)
def test_task_names_are_acceptable(task_id, name):
    assert task_name(task_id) == name


def test_the_folder_of_a_run_can_be_prepared_twice(documents, tmp_path: Path):
    recording = parse_recording(documents.encoded(documents.fork_join()))
    options = BuildOptions(directory=tmp_path, cluster_name="multiprocess", scale=0.1)
    offsets = prepare_directory(recording, options)
    first = (tmp_path / "jobs").read_bytes()
    assert prepare_directory(recording, options) == offsets
    assert (tmp_path / "jobs").read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["in.txt"]
    assert (tmp_path / "files" / "in.txt").stat().st_size == 100
    for task_id, offset in offsets.items():
        assert first[offset:].startswith(task_id.encode() + b"\t")


def test_the_folder_of_something_else_is_left_alone(documents, tmp_path: Path):
    recording = parse_recording(documents.encoded(documents.fork_join()))
    mine = tmp_path / "mine"
    prepare_directory(recording, BuildOptions(directory=mine, cluster_name="multiprocess", scale=0.1))
    with pytest.raises(ConfigError, match=r"is not the folder of a run of .* at scale 0\.2"):
        prepare_directory(recording, BuildOptions(directory=mine, cluster_name="multiprocess", scale=0.2))
    precious = tmp_path / "yours" / "files" / "in.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(ConfigError, match="Choose another folder"):
        prepare_directory(recording, BuildOptions(directory=tmp_path / "yours", cluster_name="multiprocess"))
    assert precious.read_text() == "precious"


def test_comparison(documents):
    recording = parse_recording(documents.encoded(documents.fork_join(width=2)))
    found = compare(recording, scale=0.1, makespan_seconds=5.0, cores=2)
    assert found.scaled.makespan_seconds == 4.0
    assert found.recorded.parallel_efficiency == 40 / (40 * 4)
    assert found.run.parallel_efficiency == 4 / (5 * 2)
    assert found.run.critical_path_share == 3 / 5
    assert set(found.as_dict()) == {"scale", "tasks", "recorded", "recorded_scaled", "run"}


def test_comparison_without_a_makespan(documents):
    document = documents.fork_join()
    del document["workflow"]["execution"]["makespanInSeconds"]
    document["workflow"]["execution"]["machines"] = []
    found = compare(parse_recording(documents.encoded(document)), scale=1, makespan_seconds=None, cores=None)
    assert (found.recorded.parallel_efficiency, found.run.parallel_efficiency) == (None, None)
    assert found.recorded.critical_path_share is None
