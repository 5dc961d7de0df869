"""Which batches share jobs, and what these jobs request."""

import pytest

from jobmon.core import packing
from jobmon.core.packing import Mode, Plan, job_request, mode_of, plan, problems_with

SHORT, LONG = 0.5, 60.0


@pytest.mark.parametrize(
    ("requested", "ready", "mean", "mode"),
    [
        ({"pack": 10}, 100, None, Mode.PACK),
        ({"pack": 10}, 1, None, Mode.ARRAY),  # nothing to share with
        ({"pack": 10}, 100, LONG, Mode.PACK),
        ({"pack": 1}, 100, SHORT, Mode.ARRAY),
        ({"pilot": True}, 1, None, Mode.PILOT),
        ({"pilot": False}, 100, SHORT, Mode.ARRAY),
        ({"pilot": False, "pack": 10}, 100, None, Mode.PACK),
        ({}, 100, None, Mode.ARRAY),  # their duration is unknown
        ({}, 100, LONG, Mode.ARRAY),
        ({}, 100, SHORT, Mode.PACK),
        ({}, 100, packing.SHORT_SECONDS, Mode.PACK),
        ({}, packing.PACKED_TASKS_MIN - 1, SHORT, Mode.ARRAY),
        ({"cores": 1, "memory": 1.0, "runtime": 9.0, "queue": "q"}, 100, SHORT, Mode.PACK),
        ({"gpus": 1}, 100, SHORT, Mode.ARRAY),  # what a job may need for itself
        ({"gpus": 1, "pack": 2}, 100, SHORT, Mode.PACK),
    ],
)
def test_mode(requested, ready, mean, mode):
    assert mode_of(requested, ready, mean) is mode


@pytest.mark.parametrize(
    ("requested", "ready", "mean", "jobs"),
    [
        ({"pack": 10}, 101, None, 11),
        ({}, 1_000, 0.001, packing.JOBS_MIN),
        ({}, 1_000, 3.0, 100),  # 30 s of work in each
        ({}, 8, 0.1, 4),
        ({"pack_width": 2}, 1_000, 3.0, 50),
        ({"pilot": True}, 1, None, 1),
        ({"pilot": True}, 100, None, 4),
        ({"pilot": True}, 100_000, None, packing.PILOT_JOBS_MAX),
        ({"pilot": True}, 100, 0.1, 1),
    ],
)
def test_number_of_jobs(requested, ready, mean, jobs):
    assert plan(requested, ready, mean, {}).jobs == jobs


@pytest.mark.parametrize(("there", "jobs"), [(3, 1), (4, 0), (30, 0)])
def test_pilots_that_are_there_are_counted(there, jobs):
    assert plan({"pilot": True}, 100, None, {}, pilots=there).jobs == jobs


def test_a_jobs_time_is_that_of_its_tasks_one_after_another():
    assert plan({"pack": 10, "runtime": 60.0}, 100, None, {}) == Plan(Mode.PACK, 10, 1, 660.0)
    assert plan({"pack": 10, "runtime": 60.0, "pack_width": 5}, 100, None, {}) == Plan(Mode.PACK, 10, 5, 180.0)
    assert plan({"pack": 10}, 100, None, {}).runtime_seconds is None
    assert plan({"pilot": True, "runtime": 60.0}, 1, None, {}).runtime_seconds == 3660.0
    assert plan({"pilot": True, "runtime": 7200.0}, 1, None, {}).runtime_seconds == 14460.0


def test_the_queues_limits_bound_a_job():
    limits = {"max_cores": 8, "max_memory": "4G", "max_runtime": "10m"}
    wide = {"pack": 100, "pack_width": 16, "cores": 1, "memory": 0.5, "runtime": 60.0}
    assert plan(wide, 100, None, limits) == Plan(Mode.PACK, 1, 8, 600.0)
    assert plan({**wide, "memory": 1.0}, 100, None, limits).width == 4
    assert plan({**wide, "memory": 9.0}, 100, None, limits).width == 1
    assert plan(wide, 100, None, {"max_cores": "nonsense"}).width == 16


def test_never_wider_than_there_are_tasks():
    assert plan({"pack": 4, "pack_width": 8}, 3, None, {}).width == 3


def test_what_a_job_asks_for():
    asked = {"cores": 2, "memory": 0.5, "runtime": 60.0, "queue": "q", "pack": 4, "pack_width": 3, "project": "p"}
    assert job_request(asked, 3, 300.0) == {
        "cores": 6,
        "memory": 1.5,
        "runtime": 300.0,
        "queue": "q",
        "project": "p",
    }
    assert job_request({}, 4, None) == {"cores": 4}
    assert job_request({}, 1, None) == {}


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ({"pack": 0}, "pack 0 must be an integer from 1 to"),
        ({"pack": True}, "pack True must be"),
        ({"pack": "many"}, "pack 'many' must be"),
        ({"pack_width": 2_000}, "pack_width 2000 must be an integer from 1 to 1024"),
        ({"pilot": "yes"}, "pilot 'yes' must be True or False"),
        ({"pilot": True, "pack": 2}, "mutually exclusive"),
    ],
)
def test_requests_that_make_no_sense(requested, words):
    (problem,) = problems_with(requested)
    assert words in problem


def test_requests_that_make_sense():
    assert problems_with({"pack": 2, "pack_width": 2, "pilot": None}) == []
    assert problems_with({"pilot": False, "pack": 2}) == []


@pytest.mark.parametrize(("mode", "words"), [("pack", "shares jobs"), ("pilot", "Pilot jobs run it")])
def test_it_is_told(mode, words):
    assert words in packing.told(mode, 1, 1, 10, "as requested")


@pytest.mark.parametrize(
    ("gpus", "asked"), [(1, 3), (2, 6), ("2", "6"), ("a100:2", "a100:6"), ("a100", "a100:3"), ("a:b", "a:b:3")]
)
def test_a_job_asks_for_the_gpus_of_all_tasks_that_run_at_once(gpus, asked):
    assert job_request({"gpus": gpus}, 3, None)["gpus"] == asked
    assert job_request({"gpus": gpus}, 1, None)["gpus"] == gpus


@pytest.mark.parametrize("requested", [{}, {"pack": 1}, {"pack": 4}, {"pilot": True}, {"pilot": False}, {"gpus": 1}])
@pytest.mark.parametrize("ready", [1, 7, 100])
@pytest.mark.parametrize("seconds", [None, SHORT, LONG])
def test_the_reason_fits_the_mode(requested, ready, seconds):
    measured = None if seconds is None else packing.Measured(seconds, packing.Basis.TEMPLATE)
    words = packing.reason(requested, ready, measured)
    was_asked = bool(requested.keys() & packing.KEYS)
    is_array = mode_of(requested, ready, seconds) is Mode.ARRAY
    if not is_array:
        assert words == ("as requested" if was_asked else f"because tasks of its template are short: {measured}")
    elif "gpus" in requested and ready == 100 and seconds == SHORT:
        assert words.startswith("because it requests gpus, ")
    else:
        assert ("are short" in words, "asks for" in words) == (False, False)
