"""A server per test. Makes `server_world` importable, which the property test also uses."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server_world import open_world


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
async def aged_world(tmp_path):
    """A server that has been up for 1,000 s."""
    async with open_world(tmp_path) as opened:
        opened.clock.seconds = 1000.0
        yield opened
