"""Assign processes to attempts: by tree, mark, group, earlier observation, or because there is only one attempt."""

import pytest

from jobmon.agent import processes
from jobmon.agent.processes import Marks, Process, below, owners

AGENT, SERVER = 10, 90


def listed(*rows):
    """Return processes: (pid, parent, group[, session])."""
    found = (Process(row[0], row[1], row[2], row[3] if len(row) > 3 else 1, row[0] * 100) for row in rows)
    return {one.pid: one for one in found}


#: Attempt 1 is led by 20 and attempt 2 by 30; attempt 3 was led by 40, which has exited.
GROUPS = {20: 1, 30: 2, 40: 3}
LEADERS = {20: 1, 30: 2}


def owned(*rows, marks=(), known=(), groups=GROUPS, spared=(), is_complete=True):
    found = owners(listed(*rows), AGENT, LEADERS, groups, dict(known), dict(marks).get, spared, is_complete=is_complete)
    return {attempt: sorted(one.pid for one in some) for attempt, some in found.items()}


def test_what_is_below_a_command_is_its_attempt_s_wherever_it_went():
    rows = [(20, AGENT, 20), (21, 20, 20), (22, 21, 22, 22), (30, AGENT, 30), (5, 1, 5)]
    assert owned(*rows) == {1: [20, 21, 22], 2: [30]}


@pytest.mark.parametrize(
    ("orphan", "facts", "owner"),
    [
        ((50, AGENT, 50, 50), {"marks": {50: 2}}, 2),
        ((50, AGENT, 20, 50), {"marks": {50: 2}}, 2),
        ((50, AGENT, 40), {}, 3),
        ((50, AGENT, 50, 40), {}, 3),
        ((50, AGENT, 50, 50), {"known": {(50, 5_000): 1}}, 1),
        ((50, AGENT, 50, 50), {"known": {(50, 4_999): 1}}, None),
        ((50, AGENT, 50, 50), {}, None),
        ((50, AGENT, 50, 50), {"marks": {50: 77}}, None),
        ((50, AGENT, 50, 50), {"groups": {40: 3}}, 3),
        ((50, 1, 50, 50), {"marks": {50: 2}}, None),
    ],
    ids=[
        *("marked", "the mark counts more than the group", "of its group", "of its session", "seen before"),
        *("another process had its pid", "nothing is known", "of an attempt that is over", "no other attempt is here"),
        "not below us",
    ],
)
def test_orphans(orphan, facts, owner):
    child = (51, 50, 51, 51)
    assert owned(orphan, child, **facts) == ({} if orphan[1] != AGENT else {owner: [50, 51]})


def test_a_process_whose_start_is_not_known_yet_is_not_taken_for_the_only_attempt_s():
    """Otherwise it would be terminated with that attempt."""
    begun = (50, AGENT, 50, 50)
    assert owned(begun, groups={40: 3}, is_complete=False) == {None: [50]}
    assert owned(begun, groups={40: 3}, marks={50: 3}, is_complete=False) == {3: [50]}


def test_the_server_is_nobody_s_even_if_an_attempt_started_it():
    rows = [(20, AGENT, 20), (SERVER, 20, SERVER), (91, SERVER, SERVER), (50, AGENT, 50)]
    assert owned(*rows, marks={50: 2}, spared={SERVER}) == {1: [20], 2: [50]}
    assert owned((SERVER, AGENT, SERVER), groups={40: 3}, spared={SERVER}) == {}


def test_below_goes_through_loops_of_pids_once():
    assert [one.pid for one in below(listed((1, 2, 1), (2, 1, 1)), [1])] == [1, 2]


def test_marks_name_an_attempt_of_their_program_also_inside_another_attempt():
    outer, inner = Marks(), Marks()
    mark = inner.of(7, outer=outer.of(3))
    assert (outer.attempt_in(mark), inner.attempt_in(mark)) == (3, 7)
    assert Marks().attempt_in(mark) is None


@pytest.mark.parametrize("mark", ["", "x", "-", f"{'0' * 16}-", f"{'0' * 16}-x", ":::", "a-1:b"])
def test_what_is_no_mark_names_nothing(mark):
    assert Marks("0" * 16).attempt_in(mark) is None


def test_a_shell_is_killed_before_the_command_without_which_it_would_go_on(monkeypatch):
    killed = []
    monkeypatch.setattr(processes, "signal", lambda pid, number: killed.append(pid))
    assert processes.kill_all(lambda: [4097, 4096, 4099, 4104]) == 4
    assert killed == [4096, 4097, 4099, 4104]
