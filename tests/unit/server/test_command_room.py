"""How many commands fit into a response."""

from operator import itemgetter

import pytest

from jobmon.server.command_room import CommandRoom

LENGTH = itemgetter(0)


@pytest.mark.parametrize(
    ("lengths", "admitted"),
    [([], 0), ([4, 6], 2), ([4, 7], 1), ([4, 7, 1], 1), ([11], 1), ([11, 1], 1), ([0] * 5, 5)],
)
def test_the_first_that_fit_are_admitted_and_one_in_any_case(lengths, admitted):
    rows = [(length,) for length in lengths]
    assert CommandRoom(10).admit(rows, LENGTH) == rows[:admitted]


def test_room_that_was_taken_is_gone():
    room = CommandRoom(10)
    assert room.admit([(6,)], LENGTH) == [(6,)]
    assert room.admit([(5,), (1,)], LENGTH) == []
    assert room.admit([(4,), (0,), (1,)], LENGTH) == [(4,), (0,)]
