"""Find plug-ins, and the interface's methods with an implementation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobmon.core import cluster
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.exceptions import PluginError


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A third-party package that adds modules to the namespace `jobmon.plugins`."""
    import jobmon.plugins

    folder = tmp_path / "jobmon" / "plugins"
    folder.mkdir(parents=True)
    monkeypatch.setattr(jobmon.plugins, "__path__", [*jobmon.plugins.__path__, str(folder)])
    yield folder
    cluster.load_plugin.cache_clear()
    for name in [name for name in sys.modules if name.startswith("jobmon.plugins.foreign")]:
        del sys.modules[name]


def test_a_plugin_of_another_distribution_is_found_beside_ours(tmp_path):
    folder = tmp_path / "jobmon" / "plugins"
    folder.mkdir(parents=True)
    (folder / "foreign.py").write_text("from jobmon.plugins.dummy import *\n")
    code = "from jobmon.core.cluster import load_plugin, plugin_names; load_plugin('foreign'); print(plugin_names())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "'foreign'" in found.stdout


def test_built_ins_are_found():
    assert {"dummy", "multiprocess", "sequential"} <= set(cluster.plugin_names())


def test_unknown_plugin_names_the_known_ones():
    with pytest.raises(PluginError, match=r"no cluster plug-in 'pbs'; installed are: .*multiprocess"):
        cluster.load_plugin("pbs")


def test_a_foreign_plugin_that_lacks_part_of_the_interface_is_refused_by_name(foreign):
    (foreign / "foreign_lacking.py").write_text("def get_cluster_queue_class(): return int\n", encoding="utf-8")
    with pytest.raises(PluginError, match="must return a subclass of ClusterQueue"):
        cluster.load_plugin("foreign_lacking")
    (foreign / "foreign_empty.py").write_text("", encoding="utf-8")
    with pytest.raises(PluginError, match=r"'foreign_empty' lacks get_cluster_queue_class\(\)"):
        cluster.load_plugin("foreign_empty")
    (foreign / "foreign_broken.py").write_text("import there_is_no_such_module\n", encoding="utf-8")
    with pytest.raises(PluginError, match="cannot be imported"):
        cluster.load_plugin("foreign_broken")


def test_a_queue_reports_everything_at_once():
    queue = ClusterQueue(1, "short", {"max_memory": 4, "max_runtime": "1h"})
    accepted, message = queue.validate_resources(strict=True, memory="8G", runtime="2h", coers=1)
    assert not accepted
    assert message.split("; ") == [
        "Unknown resource 'coers'",
        "did you mean 'cores'?",
        "memory 8 GiB is above the maximum of 4 GiB",
        "runtime 7200 s is above the maximum of 3600 s",
    ]
    assert queue.validate_resources(memory="8G") == (True, "")
    assert queue.coerce_resources(memory="8G") == {"memory": 4.0}
