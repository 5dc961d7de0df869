"""The third-party plug-in fulfils the contract for clusters with their own queue."""

import contextlib
import sys
from pathlib import Path
from typing import ClassVar

import pytest

import jobmon.plugins
from jobmon.testing.cluster_contract import ClusterContract

FOREIGN = Path(__file__).parent / "plugins"
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def foreign(monkeypatch):
    """Put the folder of a third-party plug-in on the path, as PYTHONPATH does."""
    monkeypatch.syspath_prepend(str(FOREIGN))
    monkeypatch.setattr(jobmon.plugins, "__path__", [*jobmon.plugins.__path__, str(FOREIGN / "jobmon" / "plugins")])
    yield
    sys.modules.pop("jobmon.plugins.backyard", None)


class TestBackyard(ClusterContract):
    plugin = "backyard"
    rejected_request: ClassVar = {"refuse": True}

    def distributor_arguments(self, folder):
        return {**super().distributor_arguments(folder), "connection": {"arrays": True}}

    @contextlib.contextmanager
    def full(self, adapter, room):
        adapter.room = len(adapter.get_submitted_or_running()) + room
        yield
        adapter.room = None

    @contextlib.contextmanager
    def without_answer(self, adapter):
        adapter.loses_answers = True
        yield
        adapter.loses_answers = False


class TestBackyardWithoutArrays(TestBackyard):
    def distributor_arguments(self, folder):
        return ClusterContract.distributor_arguments(self, folder)
