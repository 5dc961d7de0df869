from __future__ import annotations

import subprocess
import sys

import pytest

from jobmon.client.task_resources import TaskResources
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import Cause, ResourceType
from jobmon.core.exceptions import InvalidMemoryFormat, InvalidResources
from jobmon.core.resources import DEFAULT_RESOURCE_SCALE, PEAK_MARGIN

SMALL = ClusterQueue(1, "small", {"max_memory": "2G", "max_runtime": "1h", "default_cores": 1})
LARGE = ClusterQueue(2, "large", {"max_memory": "16G", "max_runtime": "10h"})
HUGE = ClusterQueue(3, "huge", {"max_memory": "64G", "max_runtime": "10h"})


def request(queue=SMALL, **requested):
    return TaskResources(requested, queue, "here", 7)


def test_the_request_is_in_normal_form_and_unbound():
    resources = request(memory="512M", runtime="1h30m", queue_name=None, cores="2")
    assert resources.requested_resources == {"memory": 0.5, "runtime": 5400.0, "cores": 2}
    assert (resources.id, resources.cluster_id, resources.kind) == (None, 7, ResourceType.ORIGINAL)


def test_the_name_of_the_queue_is_not_part_of_the_request():
    assert TaskResources({"queue": "small", "cores": 1}, SMALL, "here") == request(cores=1)


def test_a_value_that_cannot_be_read_is_refused():
    with pytest.raises(InvalidMemoryFormat):
        request(memory="much")


def test_equality_is_by_content():
    one, other = request(memory=1, cores=2), request(cores=2, memory="1G")
    assert (one, hash(one)) == (other, hash(other))
    different = [
        request(LARGE, memory=1, cores=2),
        TaskResources({"memory": 1, "cores": 2}, SMALL, "there"),
        TaskResources({"memory": 1, "cores": 2}, SMALL, "here", kind=ResourceType.ADJUSTED),
    ]
    assert one not in different
    assert one != "something else"


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from jobmon.client.task_resources import TaskResources as T; from jobmon.core.cluster_protocol import *;"
        "import sys; sys.stdout.write(str(hash(T({'memory': 1}, ClusterQueue(1, 'small', {}), 'here'))))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(other) == hash(request(memory=1))
    assert 0 <= int(other) < 2**60


def test_validation_asks_the_queue():
    assert request(memory=1).validate() == (True, "")
    assert request(memory=5).validate() == (True, "")
    valid, message = request(memory=5).validate(strict=True)
    assert not valid
    assert "above the maximum of 2 GiB" in message


def test_coercion_moves_within_the_limits_and_fills_in_defaults():
    coerced = request(memory=5).coerce_resources()
    assert coerced.requested_resources == {"memory": 2.0, "cores": 1}
    assert coerced.kind is ResourceType.VALIDATED


GROWN = 1 + DEFAULT_RESOURCE_SCALE


@pytest.mark.parametrize(
    ("cause", "peak", "expected"),
    [
        (Cause.OUT_OF_MEMORY, None, {"memory": GROWN, "runtime": 60, "cores": 2}),
        (Cause.OUT_OF_MEMORY, 1.1, {"memory": GROWN, "runtime": 60, "cores": 2}),
        (Cause.OUT_OF_MEMORY, 1.5, {"memory": 1.5 * (1 + PEAK_MARGIN), "runtime": 60, "cores": 2}),
        (Cause.OUT_OF_TIME, 1.5, {"memory": 1, "runtime": 60 * GROWN, "cores": 2}),
        (None, None, {"memory": GROWN, "runtime": 60 * GROWN, "cores": 2}),
        (Cause.EXIT_CODE, 1.5, {"memory": GROWN, "runtime": 60 * GROWN, "cores": 2}),
    ],
)
def test_without_scales_the_cause_decides_what_grows(cause, peak, expected):
    adjusted = request(memory=1, runtime=60, cores=2).adjust(None, (), 1, cause, peak)
    assert adjusted.requested_resources == expected


def test_what_was_not_asked_for_grows_only_from_a_measured_peak():
    assert request(cores=2).adjust({}, (), 1, Cause.OUT_OF_MEMORY).requested_resources == {"cores": 2}
    assert request(cores=2).adjust({}, (), 1, Cause.OUT_OF_MEMORY, 0.5).requested_resources["memory"] == 0.6
    assert request(cores=2).adjust({}, (), 1, Cause.OUT_OF_TIME, 0.5).requested_resources == {"cores": 2}


def test_scales_are_obeyed_as_given_whatever_the_cause():
    scales = {"memory": 0.1, "cores": 1.0}
    adjusted = request(memory=1, runtime=60, cores=2).adjust(scales, (), 1, Cause.OUT_OF_TIME, 1.9)
    assert adjusted.requested_resources == {"memory": 1.1, "runtime": 60, "cores": 4}


@pytest.mark.parametrize("scale", [[0.5], lambda old: old / 2])
def test_a_scale_that_shrinks_is_refused(scale):
    with pytest.raises(InvalidResources, match="must not shrink"):
        request(memory=1).adjust({"memory": scale}, (), 1)


def test_a_raised_request_goes_to_the_first_queue_that_takes_it():
    raised = request(memory=2).adjust({"memory": 1.0}, (LARGE, HUGE), 1)
    assert (raised.queue_name, raised.requested_resources, raised.kind) == (
        "large",
        {"memory": 4.0},
        ResourceType.ADJUSTED,
    )
    assert (raised.cluster_name, raised.cluster_id, raised.id) == ("here", 7, None)


def test_a_request_that_fits_nowhere_takes_the_most_of_the_last_queue():
    raised = request(memory=2).adjust({"memory": [100]}, (LARGE, HUGE), 1)
    assert (raised.queue_name, raised.requested_resources["memory"]) == ("huge", 64.0)


def test_without_fallback_it_takes_the_most_of_its_own_queue():
    raised = request(memory=2).adjust({"memory": lambda old: old * 3}, (), 1)
    assert (raised.queue_name, raised.requested_resources["memory"]) == ("small", 2.0)


def test_what_was_asked_for_at_first_stays_known():
    asked = request(memory=5)
    checked = asked.coerce_resources()
    raised = checked.adjust({"memory": 1.0}, (LARGE,), 1)
    again = raised.adjust({"memory": 1.0}, (LARGE,), 2)
    assert [one.original for one in (asked, checked, raised, again)] == [None, *[{"memory": 5}] * 3]
    assert request(memory=1, cores=1).coerce_resources().original is None
    assert checked != TaskResources({"memory": 2, "cores": 1}, SMALL, "here", kind=ResourceType.VALIDATED)


def test_it_can_be_read():
    assert repr(request(memory=1)) == "TaskResources(here/small, {'memory': 1.0}, original)"
