"""Units, limits and scaling of requests."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core import exceptions, resources


@pytest.mark.parametrize(
    ("text", "gib"),
    [(2, 2.0), (0.5, 0.5), ("3", 3.0), ("512M", 0.5), ("512MB", 0.5), ("512 MiB", 0.5), ("1.5G", 1.5), ("2 GiB", 2.0),
     ("1T", 1024.0), ("1048576K", 1.0), ("1073741824B", 1.0)],
)  # fmt: skip
def test_memory_is_read_in_gib(text, gib):
    assert resources.memory_gib(text) == pytest.approx(gib)


@pytest.mark.parametrize("wrong", ["8GG", "8Q", "8 iB"])
def test_unknown_memory_unit_is_named(wrong):
    with pytest.raises(exceptions.InvalidMemoryUnit, match=wrong.strip("8 ")):
        resources.memory_gib(wrong)


@pytest.mark.parametrize("wrong", [0, -1, "-1G", "", "G", True, None, math.nan, math.inf, 1e300, "1e300", [], "1,5G"])
def test_unreadable_memory_is_refused_with_its_value(wrong):
    with pytest.raises(exceptions.InvalidMemoryFormat, match="Memory"):
        resources.memory_gib(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(90, 90), ("90", 90), ("90s", 90), ("1h30m", 5400), ("1h 30m", 5400), ("01:30:00", 5400), ("1-00:00:00", 86400),
     ("2d", 172800), ("1.5h", 5400), ("2 hours", 7200), ("10min", 600)],
)  # fmt: skip
def test_runtime_is_read_in_seconds(text, seconds):
    assert resources.runtime_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("wrong", [0, -5, "1x", "", "h", True, None, math.nan, "12:61:00", "1e300", "400d"])
def test_unreadable_runtime_is_refused_with_its_value(wrong):
    with pytest.raises(exceptions.InvalidResources, match="Runtime"):
        resources.runtime_seconds(wrong)


@pytest.mark.parametrize("wrong", [0, -1, "many", True, math.nan, 1e300])
def test_unreadable_cores_are_refused(wrong):
    with pytest.raises(exceptions.InvalidResources, match="Cores"):
        resources.cores_number(wrong)


def test_unknown_resource_names_the_nearest_known_one():
    assert resources.unknown_keys({"memroy": 1}, resources.COMMON_KEYS) == [
        "Unknown resource 'memroy'; did you mean 'memory'?"
    ]


def test_limits_say_what_is_wrong_and_coercion_mends_it():
    queue = {"max_memory": "4G", "min_cores": 2, "max_runtime": "1h", "default_runtime": 60}
    request = {"memory": 8.0, "cores": 1}
    assert resources.problems_with(request, queue) == [
        "cores 1 cores is below the minimum of 2 cores",
        "memory 8 GiB is above the maximum of 4 GiB",
    ]
    assert resources.coerced(request, queue) == {"memory": 4.0, "cores": 2, "runtime": 60.0}


@pytest.mark.parametrize(
    ("scale", "values"),
    [(0.5, [15.0, 22.5, 33.75]), (lambda old: old + 1, [11.0, 12.0, 13.0]), ([20, 40], [20.0, 40.0, 40.0])],
)
def test_scales_are_cumulative_and_a_dry_list_repeats_its_last_value(scale, values):
    request = {"memory": 10.0, "queue": "all.q"}
    seen = []
    for step in (1, 2, 3):
        request = resources.scaled(request, {"memory": scale, "runtime": 0.5}, step)
        seen.append(request["memory"])
    assert seen == values
    assert "runtime" not in request  # not asked for: nothing to scale


@pytest.mark.parametrize(
    "scale", [-0.5, True, "0.5", [], None, lambda old: None, lambda old: -old, lambda old: math.nan]
)
def test_a_scale_that_makes_no_number_is_refused(scale):
    with pytest.raises(exceptions.InvalidResources, match="scale"):
        resources.scaled({"memory": 1.0}, {"memory": scale}, 1)


def test_an_iterator_as_scale_is_read_once_and_bounded():
    numbers = iter(range(1, 10))
    assert resources.stored_scale(numbers, 3) == [1, 2, 3]
    with pytest.raises(exceptions.InvalidResources):
        resources.stored_scale(iter(()))
    with pytest.raises(exceptions.InvalidResources):
        resources.stored_scale("0.5")


_requests = st.fixed_dictionaries(
    {"cores": st.integers(1, 64)}, optional={"memory": st.floats(0.01, 1e4), "runtime": st.floats(1, 1e5)}
)
_scales = st.one_of(
    st.floats(0, 2), st.lists(st.floats(1e5, 1e6), min_size=1).map(sorted), st.just(lambda old: old * 1.5)
)


@given(_requests, st.sampled_from(["out of memory", "out of time"]), st.none() | st.floats(0.001, 1e4))
def test_without_scales_only_what_was_missing_grows_and_it_does(request, cause, peak):
    missing = resources.MISSING[cause]
    raised = resources.raised(request, cause, peak)
    assert {key: raised.get(key) for key in request if key != missing} == {
        key: value for key, value in request.items() if key != missing
    }
    if missing in request:
        assert raised[missing] >= request[missing] * (1 + resources.DEFAULT_RESOURCE_SCALE)
    if missing == "memory" and peak is not None:
        assert raised["memory"] > peak


@given(_requests, st.dictionaries(st.sampled_from(["cores", "memory", "runtime"]), _scales), st.integers(1, 4))
def test_scaling_never_lowers_and_touches_only_what_has_a_scale(request, scales, step):
    scaled = resources.scaled(request, scales, step)
    assert scaled.keys() == request.keys()
    for key, value in request.items():
        assert scaled[key] >= value if key in scales else scaled[key] == value
    assert resources.problems_with_scales(request, scales) == []


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_numbers_of_gib_stay_what_they_are(value):
    assert resources.memory_gib(value) == value
    assert resources.memory_gib(f"{value!r}G") == pytest.approx(value)


@given(
    st.integers(1, 2**60),
    st.sampled_from("KMGTP"),
    st.sampled_from(["{}", "{}B", "{}iB"]),
    st.sampled_from(["", " "]),
    st.booleans(),
)
def test_every_way_to_write_an_amount_of_memory_means_the_same(count, prefix, suffix, gap, is_small):
    unit = suffix.format(prefix)
    in_bytes = count * 1024 ** ("KMGTP".index(prefix) + 1)
    text = f"{count}{gap}{unit.lower() if is_small else unit}"
    if in_bytes > resources.MEMORY_GIB_MAX * 2**30:
        with pytest.raises(exceptions.InvalidMemoryFormat):
            resources.memory_gib(text)
    else:
        assert resources.memory_gib(text) == pytest.approx(in_bytes / 2**30)


@given(st.integers(0, 300), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_every_way_to_write_a_time_means_the_same(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    for text in (f"{days}d{hours}h{minutes}m{seconds}s", f"{days}-{hours:02}:{minutes:02}:{seconds:02}", f"{total}s"):
        assert resources.runtime_seconds(text) == total


@given(st.text(max_size=12))
def test_nonsense_is_read_or_refused_but_never_a_crash(text):
    for read in (resources.memory_gib, resources.runtime_seconds, resources.cores_number):
        with contextlib.suppress(exceptions.InvalidMemoryFormat, exceptions.InvalidResources):
            assert read(text) > 0
