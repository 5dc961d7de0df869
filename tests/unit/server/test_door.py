"""When a server stops listening for other hosts."""

import pytest

from jobmon.server.door import Door


@pytest.fixture
def door():
    return Door(60.0, is_inherited=False)


def test_it_is_closed_after_a_while_in_which_nobody_needed_it(door):
    door.ask(7)
    assert door.runs == {7}
    looks = [(True, 0.0), (False, 10.0), (False, 69.0), (True, 69.5), (False, 70.0), (False, 129.0), (False, 130.0)]
    assert [door.is_to_be_closed(*look) for look in looks] == [*[False] * 6, True]
    door.closed()
    assert door.runs == set()


def test_who_asks_keeps_it_open(door):
    door.is_to_be_closed(False, 0.0)
    door.ask(7)
    assert not door.is_to_be_closed(False, 61.0)
    door.ask(8)
    assert door.runs == {7, 8}


@pytest.mark.parametrize("way", ["inherited", "not said"])
def test_any_run_counts_where_it_is_not_known_which_asked(way):
    door = Door(60.0, is_inherited=way == "inherited")
    if way == "not said":
        door.ask(None)
    door.ask(7)
    assert door.runs is None
