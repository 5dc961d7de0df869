"""Read WfFormat documents, and reject malformed ones with an exact error."""

from __future__ import annotations

import pytest

from jobmon.client.wfformat import RecordingError, critical_path_seconds, parse_recording, read_recording
from jobmon.client.wfformat.document import category_of
from jobmon.client.wfformat.reader import place_of


def tasks_of(document):
    return document["workflow"]["specification"]["tasks"]


def runs_of(document):
    return document["workflow"]["execution"]["tasks"]


def refusal(documents, document) -> str:
    with pytest.raises(RecordingError) as caught:
        parse_recording(documents.encoded(document))
    return str(caught.value)


def test_a_good_document_is_read_in_an_order_that_can_be_built(documents):
    recording = parse_recording(documents.encoded(documents.fork_join(width=2)))
    assert [task.task_id for task in recording.tasks] == [
        "split_ID00001",
        "work_ID00002",
        "work_ID00003",
        "join_ID09999",
    ]
    assert [task.category for task in recording.tasks] == ["split", "work", "work", "join"]
    assert recording.tasks[-1].parents == ("work_ID00002", "work_ID00003")
    assert recording.prepared_files == ("in.txt",)
    assert (recording.makespan_seconds, recording.cores, recording.work_seconds) == (40.0, 4, 40.0)
    assert critical_path_seconds(recording) == 30.0


def test_dependencies_are_the_union_of_parents_children_and_files(documents):
    document = documents.fork_join(width=3)
    split, first, second, third, join = tasks_of(document)
    split["children"] = [first["id"]]
    first["parents"] = []
    second["parents"] = [split["id"]]
    third["parents"] = []
    for side in (first, second, third):
        side["children"] = []
    join["parents"] = []
    recording = parse_recording(documents.encoded(document))
    parents = {task.task_id: set(task.parents) for task in recording.tasks}
    assert parents[third["id"]] == {split["id"]}
    assert parents[join["id"]] == {first["id"], second["id"], third["id"]}


def test_a_file_changed_in_place_must_be_there_before(documents):
    document = documents.fork_join(width=1)
    split = tasks_of(document)[0]
    split["outputFiles"].append("in.txt")
    assert parse_recording(documents.encoded(document)).prepared_files == ("in.txt",)


@pytest.mark.parametrize(
    ("runtime", "percent", "duration", "share"),
    [(0.0, 100.0, 0.0, 1.0), (-3.5, 0.0, 0.0, 0.0), (2, 174.9, 2.0, 1.749), (1.5, None, 1.5, 1.0), (1, -5, 1.0, 0.0)],
)
def test_odd_times_and_shares(documents, runtime, percent, duration, share):
    document = documents.fork_join()
    runs_of(document)[0].update(runtimeInSeconds=runtime, avgCPU=percent)
    first = parse_recording(documents.encoded(document)).tasks[0]
    assert (first.duration_seconds, first.cpu_share) == (duration, pytest.approx(share))


@pytest.mark.parametrize(
    ("name", "program", "category"),
    [
        ("mProject_ID0000001", "", "mProject"),
        ("cpuhog_forkjoin_00000001", "cpuhog", "cpuhog"),
        ("fast2bfq_s_1_sequence_10_ID0000003", "fast2bfq", "fast2bfq"),
        ("NFCORE_RNASEQ.RNASEQ.DUPRADAR", "dupradar.r \\\n x", "NFCORE_RNASEQ.RNASEQ.DUPRADAR"),
        ("merge-12", "sort", "merge"),
        ("0001", "", "0001"),
    ],
)
def test_category(name, program, category):
    assert category_of(name, program) == category


def test_absolute_names_lie_in_the_folder_of_the_run():
    assert place_of("/25/ab/x.bam") == "25/ab/x.bam"
    assert place_of("./x//y") == "x/y"


# --- broken documents -------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RecordingError, match=r"missing\.json cannot be read: No such file or directory"):
        read_recording(tmp_path / "missing.json")
    with pytest.raises(RecordingError, match="cannot be read: Is a directory"):
        read_recording(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"not json", b"[" * 100_000, b'{"a": NaN}'])
def test_not_json(content):
    with pytest.raises(RecordingError, match="not valid JSON"):
        parse_recording(content)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"3"])
def test_json_of_another_shape(content):
    with pytest.raises(RecordingError, match="the document: expected `object`"):
        parse_recording(content)


def test_another_version(documents):
    document = documents.fork_join() | {"schemaVersion": "1.4"}
    assert refusal(documents, document) == "schemaVersion is '1.4'; only WfFormat 1.5 is supported."


def test_missing_part(documents):
    document = documents.fork_join()
    del document["workflow"]["execution"]
    assert refusal(documents, document) == "workflow: object missing required field `execution`."


def test_no_tasks(documents):
    document = documents.fork_join()
    document["workflow"]["specification"]["tasks"] = []
    assert "is empty" in refusal(documents, document)


def test_wrong_type_names_task_and_field(documents):
    document = documents.fork_join()
    runs_of(document)[1]["runtimeInSeconds"] = "long"
    assert refusal(documents, document) == (
        "task 'work_ID00002' (workflow.execution.tasks[1]), field runtimeInSeconds: expected `float`, got `str`."
    )


def test_wrong_type_inside_a_list_names_the_place(documents):
    document = documents.fork_join()
    tasks_of(document)[0]["inputFiles"] = ["in.txt", 7]
    assert "task 'split_ID00001' (workflow.specification.tasks[0]), field inputFiles[1]: expected `str`" in refusal(
        documents, document
    )


def test_missing_field_of_a_task(documents):
    document = documents.fork_join()
    del tasks_of(document)[2]["parents"]
    assert "task 'work_ID00003'" in (text := refusal(documents, document))
    assert "missing required field `parents`" in text


def test_a_task_that_is_no_object(documents):
    document = documents.fork_join()
    tasks_of(document)[1] = "work"
    assert refusal(documents, document).startswith("task without an ID (workflow.specification.tasks[1]): expected")


@pytest.mark.parametrize("field", ["parents", "children"])
def test_unknown_relative(documents, field):
    document = documents.fork_join()
    tasks_of(document)[1][field].append("nobody")
    assert refusal(documents, document) == f"task 'work_ID00002', field {field}[1]: there is no task 'nobody'."


def test_cycle_is_printed(documents):
    document = documents.fork_join(width=1)
    tasks_of(document)[0]["parents"] = ["join_ID09999"]
    text = refusal(documents, document)
    assert "form a cycle" in text
    ring = text.rsplit(": ", 1)[1].rstrip(".").split(" -> ")
    assert ring[0] == ring[-1]
    assert set(ring) == {"split_ID00001", "work_ID00002", "join_ID09999"}
    assert "split_ID00001 -> work_ID00002" in text


def test_own_parent_is_a_cycle(documents):
    document = documents.fork_join()
    tasks_of(document)[0]["parents"] = ["split_ID00001"]
    assert "split_ID00001 -> split_ID00001" in refusal(documents, document)


@pytest.mark.parametrize("part", ["specification", "execution"])
def test_duplicate_task(documents, part):
    document = documents.fork_join()
    tasks = document["workflow"][part]["tasks"]
    tasks.append(dict(tasks[0]))
    assert f"workflow.{part}.tasks: the id 'split_ID00001' occurs more than once." in refusal(documents, document)


def test_unknown_file(documents):
    document = documents.fork_join()
    tasks_of(document)[1]["outputFiles"].append("secret.txt")
    assert "task 'work_ID00002', field outputFiles[1]: the file 'secret.txt' is not in" in refusal(documents, document)


@pytest.mark.parametrize(
    ("file_id", "problem"),
    [
        ("../up.txt", "leads outside the folder"),
        ("/", "names no file"),
        ("a\nb", "control character"),
        ("x" * 300, "too long"),
        ("./in.txt", "are the same file"),
        ("in.txt/below", "is both a file and the folder of"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_files_without_a_place(documents, file_id, problem):
    document = documents.fork_join()
    document["workflow"]["specification"]["files"].append({"id": file_id, "sizeInBytes": 1})
    assert problem in refusal(documents, document)


def test_runs_that_do_not_fit_the_tasks(documents):
    document = documents.fork_join()
    runs_of(document)[0]["id"] = "stranger"
    assert "task 'stranger' is not in workflow.specification.tasks" in refusal(documents, document)
    del runs_of(document)[0]
    assert "task 'split_ID00001': workflow.execution.tasks does not contain it" in refusal(documents, document)


def test_infinite_time(documents):
    text = documents.encoded(documents.fork_join()).replace(
        b'"runtimeInSeconds": 10.0', b'"runtimeInSeconds": 1e999', 1
    )
    with pytest.raises(RecordingError, match="task 'split_ID00001', field runtimeInSeconds: the number is too large"):
        parse_recording(text)
