"""A server per test. `server_world` is importable from here on: it is shared with the property test."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server_world import open_world


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as opened:
        yield opened
