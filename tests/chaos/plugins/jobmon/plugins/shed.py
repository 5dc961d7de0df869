"""A cluster for the chaos tests: jobs are processes of this machine that outlive their distributor.

A job is a stand-alone worker. Its ID is chosen before it is submitted and is in the environment of all its processes,
so that another distributor can find them. When the worker of a job has exited, its other processes are killed, as on a
real cluster.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import uuid

from jobmon.core.cluster_protocol import SUBMISSION_TOKEN, ClusterDistributor, ClusterQueue, ClusterWorkerNode
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import RemoteExitInfoNotAvailable
from jobmon.worker_node import process

VARIABLE, TOKEN = "SHED_JOB", "SHED_TOKEN"


class ShedDistributor(ClusterDistributor):
    def __init__(self, cluster_name, *args, **kwargs):
        super().__init__(cluster_name, *args, **kwargs)
        self._children = {}

    @property
    def worker_node_entry_point(self):
        words = [sys.executable, "-I", "-S", process.__file__, "--distributor-id-variable", VARIABLE]
        return shlex.join(words)

    def submit_to_batch_distributor(self, command, name, requested_resources):
        identity = uuid.uuid4().hex
        token = requested_resources[SUBMISSION_TOKEN]
        environment = {**os.environ, VARIABLE: identity, TOKEN: token, "JOBMON_WORKER_REPORT_SECONDS": "10"}
        self._children[identity] = subprocess.Popen(
            shlex.split(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return identity

    def find_submitted(self, tokens):
        found = {}
        for variables in _environments().values():
            if variables.get(TOKEN) in tokens:
                found[variables[TOKEN]] = {0: variables[VARIABLE]}
        return found

    def get_submitted_or_running(self, distributor_ids=None):
        asked = set(self._children if distributor_ids is None else distributor_ids)
        for child in self._children.values():
            child.poll()
        jobs = {identity: pids for identity, pids in _processes().items() if identity in asked}
        living = {identity for identity, pids in jobs.items() if any(map(_is_worker, pids))}
        for identity in jobs.keys() - living:
            _signal(jobs[identity], signal.SIGKILL)
        return living

    def terminate_task_instances(self, distributor_ids):
        jobs = _processes()
        for identity in distributor_ids:
            _signal(filter(_is_worker, jobs.get(identity, ())), signal.SIGTERM)

    def get_remote_exit_info(self, distributor_id):
        job = self._children.get(distributor_id)
        if job is None or job.poll() is None:
            raise RemoteExitInfoNotAvailable("this distributor did not start it")
        if job.poll() < 0:
            return TaskInstanceStatus.UNKNOWN_ERROR, f"the job was ended by signal {-job.poll()}"
        return (TaskInstanceStatus.DONE, "") if job.poll() == 0 else (TaskInstanceStatus.ERROR, "the job failed")


def _processes():
    """Return job -> IDs of its processes."""
    found = {}
    for pid, variables in _environments().items():
        found.setdefault(variables[VARIABLE], []).append(pid)
    return found


def _environments():
    """Return process -> the variables that identify its job."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            entries = (entry.decode(errors="replace").partition("=") for entry in file.read().split(b"\0"))
            variables = {name: value for name, _, value in entries if name in (VARIABLE, TOKEN)}
            if VARIABLE in variables:
                found[int(pid)] = variables
    return found


def _is_worker(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return process.__file__.encode() in file.read()
    return False


def _signal(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class ShedWorkerNode(ClusterWorkerNode):
    distributor_id = None
    array_step_id = None


def get_cluster_queue_class():
    return ClusterQueue


def get_cluster_distributor_class():
    return ShedDistributor


def get_cluster_worker_node_class():
    return ShedWorkerNode


def get_default_queues():
    return [("default", {})]
