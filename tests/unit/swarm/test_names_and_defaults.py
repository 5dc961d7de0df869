"""Names and defaults that scripts rely on."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from jobmon.client import swarm
from jobmon.client.swarm.orchestrator import OrchestratorConfig, OrchestratorResult, WorkflowRunConfig


def test_the_defaults_of_the_configurations():
    assert dataclasses.asdict(WorkflowRunConfig()) == {
        "heartbeat_interval": None,
        "heartbeat_report_by_buffer": None,
        "fail_fast": False,
        "wedged_workflow_sync_interval": 600,
        "fail_after_n_executions": 1_000_000_000,
    }
    assert dataclasses.asdict(OrchestratorConfig()) == {
        "heartbeat_interval": 30.0,
        "heartbeat_report_by_buffer": 1.5,
        "wedged_workflow_sync_interval": 600.0,
        "fail_fast": False,
        "timeout": 36000,
        "fail_after_n_executions": None,
    }


def test_the_settings_fill_in_what_is_none(monkeypatch):
    monkeypatch.setenv("JOBMON__HEARTBEAT__WORKFLOW_RUN_INTERVAL", "11")
    monkeypatch.setenv("JOBMON__HEARTBEAT__REPORT_BY_BUFFER", "2.5")
    config = WorkflowRunConfig.from_defaults()
    assert (config.heartbeat_interval, config.heartbeat_report_by_buffer) == (11, 2.5)


def test_the_fields_of_a_result():
    assert [field.name for field in dataclasses.fields(OrchestratorResult)] == [
        "final_status",
        "elapsed_time",
        "total_tasks",
        "done_count",
        "failed_count",
        "num_previously_complete",
        "task_final_statuses",
        "done_task_ids",
        "failed_task_ids",
        "error",
        "unrecorded",
        "skipped_task_ids",
    ]
    result = OrchestratorResult("D", 1.0, 0, 0, 0, 0, {}, frozenset(), frozenset())
    assert (result.error, result.unrecorded) == (None, "")


@pytest.mark.parametrize("name", swarm.__all__)
def test_every_public_name_is_there(name):
    assert getattr(swarm, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="run_wrkflow"):
        swarm.run_wrkflow  # noqa: B018 - the access is the test


def test_naming_the_swarm_loads_no_loop_and_no_http():
    code = "import sys, jobmon.client.swarm; sys.exit(bool({'asyncio', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
