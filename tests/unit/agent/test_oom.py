"""Count processes killed by the kernel for lack of memory, from both versions of cgroups."""

import pytest

from jobmon.agent.memory import OomKills


@pytest.mark.parametrize(
    ("groups", "path", "text"),
    [
        ("0::/job_1/step\n", "job_1/step/memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("4:cpu:/x\n5:memory:/job_1\n0::/none\n", "memory/job_1/memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ],
)
def test_both_versions_are_read(tmp_path, groups, path, text):
    (tmp_path / "groups").write_text(groups)
    counter = tmp_path / path
    counter.parent.mkdir(parents=True)
    counter.write_text(text)
    kills = OomKills(str(tmp_path / "groups"), str(tmp_path))
    assert kills.count() == 2
    counter.write_text(text.replace("oom_kill 2", "oom_kill 3"))
    assert kills.count() == 3
    counter.unlink()
    assert kills.count() == 0


@pytest.mark.parametrize("groups", [None, "", "nonsense", "0::/nowhere\n"])
def test_where_nobody_can_say_there_were_none(tmp_path, groups):
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    assert OomKills(str(tmp_path / "groups"), str(tmp_path)).count() == 0
