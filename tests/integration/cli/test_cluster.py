"""List, add and remove clusters; invalid ones are rejected, and those in use are kept."""

from __future__ import annotations

import pytest


def test_clusters_are_added_changed_listed_and_removed(session):
    added = session.json(
        "cluster", "add", "große_maschine", "--plugin", "sequential", "--set", "slots=3", "--set", "room=12b",
        "--queue", "short:max_runtime=1h,max_cores=4", "--queue", "long:max_memory=512G,default_memory=1G,partition=x",
    )  # fmt: skip
    assert added["connection"] == {"slots": 3, "room": "12b"}
    assert [(queue["queue_name"], queue["parameters"]) for queue in added["queues"]] == [
        ("short", {"max_runtime": 3600.0, "max_cores": 4.0}),
        ("long", {"max_memory": 512.0, "default_memory": 1.0, "partition": "x"}),
    ]
    listed = {one["name"]: one for one in session.json("cluster", "list")}
    assert listed["große_maschine"] == added
    assert {"multiprocess", "große_maschine"} <= set(listed)
    table = session.invoke("cluster", "list")
    assert "memory up to 512 GiB (default 1 GiB)" in table
    assert "slots=3, room=12b" in table

    shown = session.both("cluster", "add", "große_maschine", "--plugin", "dummy", "-y")
    assert "already exists and will be changed" in shown
    assert [queue["queue_name"] for queue in session.json("cluster", "list")[-1]["queues"]] == ["default"]
    assert session.invoke("cluster", "remove", "große_maschine", "-y") == "Removed cluster große_maschine.\n"
    assert "große_maschine" not in session.invoke("cluster", "list")
    assert "there is no cluster" in session.invoke("cluster", "remove", "große_maschine", code=2)


def test_a_cluster_in_use_is_not_removed(session):
    refused = session.invoke("cluster", "remove", "multiprocess", "-y", code=2)
    assert f"in use by workflow {session.workflows['busy']}" in refused
    assert "multiprocess" in session.invoke("cluster", "list")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new"], "no cluster plug-in 'new'; installed are"),
        (["  ", "--plugin", "dummy"], "printable"),
        (["a\nb", "--plugin", "dummy"], "printable"),
        (["new", "--plugin", "dummy", "--set", "slots"], "KEY=VALUE"),
        (["new", "--plugin", "dummy", "--queue", ":max_cores=1"], "no name"),
        (["new", "--plugin", "dummy", "--queue", "q:max_mem=1"], "there is no max_mem"),
        (["new", "--plugin", "dummy", "--queue", "q:max_memory=1X"], "unknown unit, 'X'"),
        (["new", "--plugin", "dummy", "--queue", "q", "--queue", "q"], "specified twice"),
        (["new", "--plugin", "dummy", "--queue", "q:min_cores=4,max_cores=2"], "cores"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_recorded(session, words, said):
    assert said in session.invoke("cluster", "add", *words, code=2)
    assert words[0] not in {one["name"] for one in session.json("cluster", "list")}


def test_the_nearest_name_is_offered(session):
    assert "did you mean multiprocess?" in session.invoke("cluster", "remove", "multiproces", code=2)
