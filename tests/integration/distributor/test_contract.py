"""Third-party plug-ins fulfil the contract: a cluster with its own queue, and a direct one."""

import contextlib
from typing import ClassVar

import pytest

from jobmon.testing.cluster_contract import ClusterContract

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("foreign")]


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


class TestWorkshop(ClusterContract):
    plugin = "workshop"
