"""A distributor on this machine, against an in-memory server. Its cluster is a foreign plug-in, `backyard`."""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest
from tests.distributor_states import states_are_valid

import jobmon.plugins
from jobmon.core.clock import SystemClock
from jobmon.core.configuration import JobmonConfig
from jobmon.core.wire.launching import ClusterInfo
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.process import build_cluster
from jobmon.distributor.service import DistributorService, Identity, Setting, Timings
from jobmon.testing.gateways import FakeDistributorGateway

__all__ = ["states_are_valid"]
FOREIGN = Path(__file__).parent / "plugins"


@pytest.fixture
def config():
    return JobmonConfig(dict_config={"worker_node": {"command_interrupt_timeout": 0.3}})


@pytest.fixture
def foreign(monkeypatch):
    """The folder of somebody else's plug-ins is on the path, as with PYTHONPATH."""
    monkeypatch.syspath_prepend(str(FOREIGN))
    monkeypatch.setattr(jobmon.plugins, "__path__", [*jobmon.plugins.__path__, str(FOREIGN / "jobmon" / "plugins")])
    yield
    for name in ("backyard", "workshop"):
        sys.modules.pop(f"jobmon.plugins.{name}", None)


@pytest.fixture
def private_folders(tmp_path, monkeypatch):
    """Put the runtime folder and the data folder below folders of this test."""
    runtime = f"/tmp/jt-{os.getpid()}-{abs(hash(str(tmp_path))) % 100000}"
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    yield tmp_path
    import shutil

    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def start(private_folders, config, foreign):
    """Return a function that creates a gateway and runs services against it."""
    return Lab(private_folders, config)


class Lab:
    def __init__(self, folder, config):
        self.folder = folder
        self.config = config

    def gateway(self, plugin="backyard", **kwargs):
        return FakeDistributorGateway(
            [ClusterInfo(cluster_id=1, name=plugin, plugin=plugin, connection={})], str(self.folder), **kwargs
        )

    def service(self, gateway, cluster_poll=0.05, **timings):
        logs = self.folder / "data" / "logs" / "1"
        setting = Setting(
            lambda info, response: build_cluster(info, response, self.folder / "data", self.config),
            lambda response: Surroundings(response.workflow_id, 7, str(logs), response.server_identity),
        )
        identity = Identity(socket.gethostname(), os.getpid(), 0.0)
        intervals = Timings(**{"long_poll": 5.0, "cluster_poll": cluster_poll, **timings})
        return DistributorService(gateway, setting, identity, intervals, SystemClock())

    @contextlib.asynccontextmanager
    async def running(self, gateway, **timings):
        service = self.service(gateway, **timings)
        task = asyncio.create_task(service.run())
        try:
            yield service, task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
