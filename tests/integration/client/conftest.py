"""A separate data folder, with an embedded server that is stopped after the tests."""

from __future__ import annotations

import pytest

from jobmon.core.access import stop_server


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBMON_DATA_DIR", str(folder))
        patch.delenv("JOBMON_CONFIG_FILE", raising=False)
        patch.setenv("JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", "2")  # half of it until SIGTERM
        yield folder
        stop_server(data=folder)
