"""The cost of importing the public names."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"aiohttp", "rich", "sqlalchemy", "yaml", "psutil", "tenacity", "importlib.metadata", "asyncio", "http.client"}


def test_importing_the_api_loads_nothing_heavy():
    code = "import sys, jobmon.client.api; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(loaded.split()) == set()
    assert not [name for name in loaded.split() if name.startswith(("jobmon.server", "jobmon.distributor"))]
