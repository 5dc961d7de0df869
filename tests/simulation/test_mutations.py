"""Check that each mutation in `mutations.py` still applies; running the mutations takes `mutations.py` hours."""

import shutil

import pytest
from tests.simulation.mutations import MUTATIONS, SOURCES, apply


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_break_can_still_be_made(name, tmp_path):
    for path, old, new in MUTATIONS[name].changes:
        copy = tmp_path / path
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SOURCES / "jobmon" / path, copy)
        apply(copy, old, new)
        compile(copy.read_text(encoding="utf-8"), path, "exec")
