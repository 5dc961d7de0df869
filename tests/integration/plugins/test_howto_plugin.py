"""The plug-in of the how-to, word for word, passes the conformance suite with a scheduler in a folder."""

import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from jobmon.testing.cluster_contract import ClusterContract

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "write-a-plugin.md"
SCHEDULER = Path(__file__).parent / "mini_scheduler.py"


@pytest.fixture(scope="module", autouse=True)
def plugin():
    [text] = re.findall(r"runs this -->\n```python\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("jobmon.plugins.my_cluster")
    exec(compile(text, str(HOWTO), "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


class TestMyCluster(ClusterContract):
    plugin = "my_cluster"
    good_request: ClassVar = {"cores": 1, "memory": 0.1, "runtime": 60.0}
    bad_request: ClassVar = {"no_such_resource": 1}
    rejected_request: ClassVar = {"queue": "no-such-queue"}

    def distributor_arguments(self, folder):
        tools, home = folder / "bin", folder / "jobs"
        for made in (tools, home):
            made.mkdir(exist_ok=True)
        for name in ("submit", "jobs", "kill-jobs"):
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SCHEDULER} {name} "$@"\n')
            (tools / name).chmod(0o755)
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MINI_SCHEDULER_HOME": str(home)}
        return {**super().distributor_arguments(folder), "environment": environment}
