"""The names, parameters and defaults on which users' scripts rely: one line per signature."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest

#: "module:qualified.name" -> parameters in order, "name" or "name=default" (repr); more with defaults may follow.
SIGNATURES = {
    "jobmon.core.task_generator:task_generator": (
        "serializers=None tool_name=None naming_args=None max_attempts=None module_source_path=None name_func=None"
        " default_cluster_name='' default_compute_resources=None default_resource_scales=None yaml_file=None"
    ),
    "jobmon.core.task_generator:TaskGenerator.run": "self args",
    "jobmon.client.swarm.orchestrator:WorkflowRunOrchestrator": "state gateway config",
    "jobmon.client.swarm.orchestrator:WorkflowRunOrchestrator.run": "self distributor_alive_callable",
    "jobmon.client.swarm.builder:SwarmBuilder": (
        "requester workflow_run_id heartbeat_interval=30.0 heartbeat_report_by_buffer=1.5 initial_status='B'"
    ),
    "jobmon.client.swarm.builder:SwarmBuilder.build_from_workflow": "self workflow",
    "jobmon.client.swarm.builder:SwarmBuilder.build_from_workflow_id": "self workflow_id edge_chunk_size=500",
    "jobmon.client.swarm.state:StateUpdate.empty": "",
    "jobmon.client.swarm.state:StateUpdate.from_task_status_response": "tasks_by_status sync_time=None",
    "jobmon.client.swarm.state:StateUpdate.merge": "self other",
    "jobmon.client.swarm.state:SwarmState": (
        "workflow_id workflow_run_id dag_id max_concurrently_running=10000 status='B'"
    ),
    "jobmon.client.swarm.state:SwarmState.add_task": "self task",
    "jobmon.client.swarm.state:SwarmState.add_array": "self array",
    "jobmon.client.swarm.state:SwarmState.get_task": "self task_id",
    "jobmon.client.swarm.state:SwarmState.get_tasks_by_status": "self status",
    "jobmon.client.swarm.state:SwarmState.has_pending_work": "self",
    "jobmon.client.swarm.state:SwarmState.get_array_capacity": "self array_id",
    "jobmon.client.swarm.state:SwarmState.apply_update": "self update",
    "jobmon.client.swarm.state:SwarmState.update_task_status": "self task_id new_status",
    "jobmon.client.swarm.state:SwarmState.propagate_completions": "self completed_tasks",
    "jobmon.client.swarm.state:SwarmState.enqueue_task": "self task front=False",
    "jobmon.client.swarm.state:SwarmState.dequeue_task": "self",
    "jobmon.client.swarm.state:SwarmState.get_cached_resources": "self resource_hash",
    "jobmon.client.swarm.state:SwarmState.cache_resources": "self resource_hash task_resources",
    "jobmon.client.swarm.task:SwarmTask": (
        "task_id array_id status max_attempts task_resources cluster resource_scales=None fallback_queues=None "
        "compute_resources_callable=None"
    ),
    "jobmon.client.swarm.array:SwarmArray": "array_id max_concurrently_running array_name=None",
    "jobmon.client.swarm.array:SwarmArray.add_task": "self task",
    "jobmon.client.swarm.gateway:ServerGateway": "requester workflow_id workflow_run_id",
    "jobmon.client.swarm.gateway:ServerGateway.set_session": "self session",
    "jobmon.client.swarm.gateway:ServerGateway.close": "self",
    "jobmon.client.swarm.gateway:ServerGateway.log_heartbeat": "self status next_report_increment",
    "jobmon.client.swarm.gateway:ServerGateway.update_status": "self status",
    "jobmon.client.swarm.gateway:ServerGateway.terminate_task_instances": "self",
    "jobmon.client.swarm.gateway:ServerGateway.request_triage": "self",
    "jobmon.client.swarm.gateway:ServerGateway.get_task_status_updates": "self since=None",
    "jobmon.client.swarm.gateway:ServerGateway.get_workflow_concurrency": "self",
    "jobmon.client.swarm.gateway:ServerGateway.get_array_concurrency": "self array_id",
    "jobmon.client.swarm.gateway:ServerGateway.queue_task_batch": (
        "self array_id task_ids task_resources_id cluster_id"
    ),
    "jobmon.client.swarm.gateway:ServerGateway.get_workflow_metadata": "self",
    "jobmon.client.swarm.gateway:ServerGateway.get_tasks": "self max_task_id=0 chunk_size=500",
    "jobmon.client.swarm.gateway:ServerGateway.get_downstream_tasks": "self task_ids dag_id",
    "jobmon.client.swarm.gateway:ServerGateway.get_server_time": "self",
    "jobmon.client.swarm.gateway:ServerGateway.log_heartbeat_sync": "self status next_report_increment",
    "jobmon.client.swarm.gateway:ServerGateway.update_status_sync": "self status",
    "jobmon.client.swarm.gateway:ServerGateway.get_server_time_sync": "self",
    "jobmon.client.swarm:run_workflow": (
        "workflow workflow_run_id distributor_alive status='B' config=None timeout=36000 requester=None"
    ),
    "jobmon.client.swarm:resume_workflow_run": (
        "workflow_id workflow_run_id distributor_alive status='B' config=None timeout=36000 requester=None"
    ),
    "jobmon.client.workflow_run:WorkflowRunFactory": "workflow_id requester=None",
    "jobmon.client.workflow_run:WorkflowRunFactory.set_workflow_resume": (
        "self reset_running_jobs=True resume_timeout=300 force_cleanup=False"
    ),
    "jobmon.client.workflow_run:WorkflowRunFactory.wait_for_workflow_resume": (
        "self resume_timeout=300 force_cleanup=False"
    ),
    "jobmon.client.workflow_run:WorkflowRunFactory.force_cleanup_kill_self": "self",
    "jobmon.client.workflow_run:WorkflowRunFactory.reset_task_statuses": (
        "self reset_if_running=True force_cleanup=False"
    ),
    "jobmon.client.workflow_run:WorkflowRunFactory.create_workflow_run": (
        "self workflow_run_heartbeat_interval=None heartbeat_report_by_buffer=None"
    ),
    "jobmon.client.workflow_run:WorkflowRun": (
        "workflow_id requester=None workflow_run_heartbeat_interval=None heartbeat_report_by_buffer=None"
    ),
    "jobmon.client.workflow_run:WorkflowRun.bind": "self",
    "jobmon.client.tool:Tool": "name='unknown' active_tool_version_id='latest' requester=None",
    "jobmon.client.tool:Tool.get_new_tool_version": "self",
    "jobmon.client.tool:Tool.set_active_tool_version_id": "self tool_version_id",
    "jobmon.client.tool:Tool.get_task_template": (
        "self template_name command_template node_args=None task_args=None op_args=None default_cluster_name='' "
        "default_compute_resources=None default_resource_scales=None yaml_file=None max_attempts=None"
    ),
    "jobmon.client.tool:Tool.create_workflow": (
        "self workflow_args='' name='' description='' workflow_attributes=None max_concurrently_running=2147483647 "
        "chunk_size=500 default_cluster_name='' default_compute_resources_set=None default_resource_scales_set=None "
        "default_max_attempts=None"
    ),
    "jobmon.client.tool:Tool.set_default_compute_resources_from_dict": "self cluster_name compute_resources",
    "jobmon.client.tool:Tool.set_default_resource_scales_from_dict": "self cluster_name resource_scales",
    "jobmon.client.tool:Tool.set_default_compute_resources_from_yaml": (
        "self default_cluster_name yaml_file set_task_templates=False ignore_missing_keys=False"
    ),
    "jobmon.client.tool:Tool.set_default_resource_scales_from_yaml": (
        "self default_cluster_name yaml_file set_task_templates=False ignore_missing_keys=False"
    ),
    "jobmon.client.tool:Tool.set_default_cluster_name": "self *",
    "jobmon.client.tool:Tool.set_default_max_attempts": "self value",
    "jobmon.client.workflow:Workflow.add_task": "self task",
    "jobmon.client.workflow:Workflow.add_tasks": "self *",
    "jobmon.client.workflow:Workflow.bind": "self",
    "jobmon.client.workflow:Workflow.validate": "self strict=True raise_on_error=False",
    "jobmon.client.workflow:Workflow.run": (
        "self fail_fast=False seconds_until_timeout=None resume=False reset_running_jobs=True "
        "distributor_startup_timeout=180 resume_timeout=300 configure_logging=False"
    ),
    "jobmon.client.workflow:Workflow.start": (
        "self fail_fast=False seconds_until_timeout=None resume=False reset_running_jobs=True "
        "distributor_startup_timeout=180 resume_timeout=300 configure_logging=False"
    ),
    "jobmon.client.workflow:Workflow.wait": "self timeout=None",
    "jobmon.client.run_handle:RunHandle.status": "self",
    "jobmon.client.run_handle:RunHandle.wait": "self timeout=None",
    "jobmon.client.run_handle:RunHandle.stop": "self kill=True",
    "jobmon.client.workflow:Workflow.set_task_template_max_concurrency_limit": "self task_template_name limit",
    "jobmon.client.workflow:Workflow.get_errors": "self limit=1000",
    "jobmon.core.requester:Requester": "service_url retries_timeout=300 retries_attempts=10 request_timeout=20",
    "jobmon.core.requester:Requester.send_request": "self app_route message request_type tenacious=True",
    "jobmon.core.requester:Requester.send_request_async": (
        "self session app_route message request_type tenacious=True"
    ),
    "jobmon.core.configuration:JobmonConfig": "filepath='' dict_config=None",
}

#: Dataclass -> fields in order with the repr of their default, or "" where there is none.
FIELDS = {
    "jobmon.client.swarm.orchestrator:OrchestratorResult": (
        "final_status elapsed_time total_tasks done_count failed_count num_previously_complete task_final_statuses "
        "done_task_ids failed_task_ids error=None"
    ),
    "jobmon.client.swarm.orchestrator:WorkflowRunConfig": (
        "heartbeat_interval=None heartbeat_report_by_buffer=None fail_fast=False wedged_workflow_sync_interval=600 "
        "fail_after_n_executions=1000000000"
    ),
    "jobmon.client.swarm.orchestrator:OrchestratorConfig": (
        "heartbeat_interval=30.0 heartbeat_report_by_buffer=1.5 wedged_workflow_sync_interval=600.0 fail_fast=False "
        "timeout=36000 fail_after_n_executions=None"
    ),
    "jobmon.client.swarm.gateway:HeartbeatResponse": "status",
    "jobmon.client.swarm.gateway:StatusUpdateResponse": "status",
    "jobmon.client.swarm.gateway:QueueResponse": "tasks_by_status",
    "jobmon.client.swarm.gateway:TaskStatusUpdatesResponse": "time tasks_by_status",
    "jobmon.client.swarm.gateway:WorkflowMetadata": "workflow_id dag_id max_concurrently_running",
    "jobmon.client.swarm.gateway:DownstreamTasksResponse": "downstream_tasks",
}

MODULES_WITH_LOGGER = ["builder", "gateway", "orchestrator", "state"]


def found(path):
    module, _, name = path.partition(":")
    thing = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("path", SIGNATURES)
def test_signature(path):
    parameters = list(inspect.signature(found(path)).parameters.values())
    wanted = SIGNATURES[path].split()
    for position, text in enumerate(wanted):
        if text == "*":  # the name is not fixed
            continue
        name, _, default = text.partition("=")
        parameter = parameters[position]
        assert parameter.name == name
        if default:
            assert repr(plain(parameter.default)) == default
        else:
            assert parameter.default is inspect.Parameter.empty
    for parameter in parameters[len(wanted) :]:
        optional = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert optional or parameter.default is not inspect.Parameter.empty, f"{parameter.name} is new and required"


@pytest.mark.parametrize("path", FIELDS)
def test_fields(path):
    fields = dataclasses.fields(found(path))
    wanted = FIELDS[path].split()
    for field, text in zip(fields, wanted, strict=False):
        name, _, default = text.partition("=")
        assert field.name == name
        assert (repr(field.default) if default else field.default) == (default or dataclasses.MISSING)
    assert all(field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
               for field in fields[len(wanted) :])  # fmt: skip


def plain(value):
    """A member of an enumeration of text is its letter."""
    return str(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", MODULES_WITH_LOGGER)
def test_modules_of_the_swarm_have_their_logger(name):
    assert hasattr(importlib.import_module(f"jobmon.client.swarm.{name}"), "logger")


def test_state_update_is_immutable():
    update = found("jobmon.client.swarm.state:StateUpdate").empty()
    names = {field.name for field in dataclasses.fields(update)}
    assert {"task_statuses", "max_concurrently_running", "array_limits", "workflow_run_status", "sync_time"} <= names
    with pytest.raises(dataclasses.FrozenInstanceError):
        update.sync_time = None


def test_orchestrator_result_defaults_to_no_error():
    result_class = found("jobmon.client.swarm.orchestrator:OrchestratorResult")
    result = result_class("D", 0.0, 0, 0, 0, 0, {}, frozenset(), frozenset())
    assert result.error is None


def test_properties():
    state_class = found("jobmon.client.swarm.builder:SwarmBuilder")
    for name in ("state", "task_status_map", "last_sync"):
        assert isinstance(inspect.getattr_static(state_class, name), property)
    run = found("jobmon.client.workflow_run:WorkflowRun")
    for name in ("workflow_run_id", "status"):
        assert isinstance(inspect.getattr_static(run, name), property)
    template = found("jobmon.client.task_template:TaskTemplate")
    assert {"create_task", "create_tasks", "resource_usage", "load_task_template_versions"} <= set(dir(template))


def test_tool_comes_from_both_modules():
    assert found("jobmon.client.api:Tool") is found("jobmon.client.tool:Tool")
