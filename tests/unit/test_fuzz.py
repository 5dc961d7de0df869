"""A few inputs for each target of `make fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.fuzz.inputs import inputs
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_a_target_answers_or_refuses(target):
    for seed in target.seeds:
        _fed(target, seed)

    @settings(max_examples=20, database=None)
    @given(inputs(target.seeds))
    def feed(content):
        _fed(target, content)

    feed()


def _fed(target, content):
    try:
        target.run(content)
    except target.expected:
        return
