"""Arguments of `Workflow.run`: numbers of R and NumPy are accepted, strings in place of flags are not."""

from __future__ import annotations

import dataclasses
import math

import numpy
import pytest

from jobmon.client.defaults import checked_flag, checked_seconds
from jobmon.client.running import RunOptions, begin

FLAGS = ("fail_fast", "resume", "reset_running_jobs", "configure_logging")
WAITS = ("distributor_startup_timeout", "resume_timeout")


@pytest.mark.parametrize("value", ["False", "no", "", 2, -1, 0.5, [], {}, math.nan, print])
@pytest.mark.parametrize("name", FLAGS)
def test_what_is_no_flag_is_refused_before_the_first_request(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be True or False, not "):
        begin(None, RunOptions(**{name: value}))


@pytest.mark.parametrize("value", ["3", "x", -1, math.nan, math.inf, [], True, print])
@pytest.mark.parametrize("name", [*WAITS, "seconds_until_timeout"])
def test_what_is_no_time_is_refused_before_the_first_request(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a number of seconds "):
        begin(None, RunOptions(**{name: value}))


def test_no_time_until_the_timeout_is_refused():
    with pytest.raises(ValueError, match="above 0, not 0"):
        begin(None, RunOptions(seconds_until_timeout=0))


def test_numbers_of_r_and_numpy_become_plain_values():
    given = RunOptions(
        fail_fast=numpy.bool_(True),
        resume=1.0,
        reset_running_jobs=None,
        seconds_until_timeout=numpy.int64(3),
        resume_timeout=numpy.float32(2.5),
    )
    found = begin(None, given)
    expected = dataclasses.replace(
        given, fail_fast=True, resume=True, reset_running_jobs=False, seconds_until_timeout=3, resume_timeout=2.5
    )
    assert found == expected
    assert type(found.seconds_until_timeout) in (int, float)


@pytest.mark.parametrize(("value", "flag"), [(True, True), (0, False), (None, False), (numpy.float64(1.0), True)])
def test_flags(value, flag):
    assert checked_flag(value, "flag") is flag


def test_zero_seconds():
    assert checked_seconds(0, "wait") == 0
