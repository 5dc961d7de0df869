"""A fixture: after each test, every attempt of each distributor that it made is in one state."""

import pytest

from jobmon.distributor.state import DistributorState


@pytest.fixture(autouse=True)
def states_are_valid(monkeypatch):
    made = []
    build = DistributorState.__init__

    def record(self, *arguments):
        build(self, *arguments)
        made.append(self)

    monkeypatch.setattr(DistributorState, "__init__", record)  # tests make them in many places
    yield
    for state in made:
        state.validate()
