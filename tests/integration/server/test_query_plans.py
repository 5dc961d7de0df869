"""Questions about one task touch its neighbours only: none reads a table from end to end."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

from jobmon.server.models import Base
from jobmon.server.queries import graph


@pytest.mark.parametrize("side", ["upstream", "downstream"])
def test_the_neighbours_of_a_task_are_found_by_index(side):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        question = f"EXPLAIN QUERY PLAN SELECT t.id {graph._NEIGHBOURS[side]}"
        plan = [row.detail for row in connection.execute(text(question), {"workflow": 1, "node": 1})]
    engine.dispose()
    assert plan
    assert not [step for step in plan if step.startswith("SCAN")]
