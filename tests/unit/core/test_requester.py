"""What a requester accepts: an address, and how long and how often a request is tried."""

from __future__ import annotations

import pytest

from jobmon.core.exceptions import ConfigError
from jobmon.core.requester import Requester

ADDRESS = "http://127.0.0.1:1"


@pytest.mark.parametrize("address", [None, 3, b"http://127.0.0.1:1", "", "127.0.0.1:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match=r"http\.service_url"):
        Requester(address)


@pytest.mark.parametrize("name", ["retries_timeout", "retries_attempts", "request_timeout"])
@pytest.mark.parametrize("value", [-1, float("nan"), "3", True, [1]])
def test_numbers_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be "):
        Requester(ADDRESS, **{name: value})


def test_no_attempts_no_time_for_a_response_and_parts_of_an_attempt_are_refused():
    for options in (
        {"retries_attempts": 0},
        {"retries_attempts": 2.5},
        {"request_timeout": 0},
        {"request_timeout": None},
    ):
        with pytest.raises(ConfigError):
            Requester(ADDRESS, **options)


def test_whole_floats_and_no_limits_are_accepted():
    requester = Requester(ADDRESS, retries_timeout=0, retries_attempts=3.0, request_timeout=1)
    assert (requester.retries_timeout, requester.retries_attempts, requester.request_timeout) == (0, 3, 1)
    endless = Requester(ADDRESS, retries_timeout=None, retries_attempts=None)
    assert (endless.retries_timeout, endless.retries_attempts) == (None, None)
