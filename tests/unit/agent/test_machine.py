from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent.machine import iso_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(0, 2**52), min_size=1, max_size=6))
def test_a_time_is_written_to_the_microsecond_below_it_whatever_was_written_before(values):
    for micro in values:
        seconds = micro / 1_000_000 % 4_000_000_000
        written = datetime.fromisoformat(iso_time(seconds))
        assert abs((written - EPOCH) - timedelta(seconds=seconds)) <= timedelta(microseconds=1)
