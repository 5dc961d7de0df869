"""The documents of `documents.py`, importable by the tests in this folder and in other tiers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="session")
def documents() -> ModuleType:
    path = Path(__file__).with_name("documents.py")
    spec = importlib.util.spec_from_file_location("wfformat_documents", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
