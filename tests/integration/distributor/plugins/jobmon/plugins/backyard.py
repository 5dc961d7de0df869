"""A foreign plug-in: a cluster whose jobs are processes of this machine, each with a stand-alone worker."""

import os
import shlex
import subprocess
import sys

from jobmon.core.cluster_protocol import ClusterDistributor, ClusterQueue, ClusterWorkerNode
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import RemoteExitInfoNotAvailable
from jobmon.worker_node import process


class BackyardDistributor(ClusterDistributor):
    def __init__(self, cluster_name, *args, connection, **kwargs):
        super().__init__(cluster_name, *args, **kwargs)
        self.url = connection["url"]
        self.has_arrays = connection.get("arrays", False)
        self.jobs = {}

    @property
    def worker_node_entry_point(self):
        return (
            f"{shlex.quote(sys.executable)} -I -S {shlex.quote(process.__file__)} "
            "--distributor-id-variable BACKYARD_JOB --array-step-variable BACKYARD_STEP"
        )

    def submit_to_batch_distributor(self, command, name, requested_resources):
        if requested_resources.get("refuse"):
            raise RuntimeError("no room in the backyard")
        return self._submit(command, 0)

    def submit_array_to_batch_distributor(self, command, name, requested_resources, array_length):
        if not self.has_arrays:
            return super().submit_array_to_batch_distributor(command, name, requested_resources, array_length)
        return {step: self._submit(command, step) for step in range(array_length)}

    def _submit(self, command, step):
        job = f"job{len(self.jobs)}"
        environment = {**os.environ, "BACKYARD_JOB": job, "BACKYARD_STEP": str(step), "JOBMON_SERVICE_URL": self.url}
        environment["JOBMON_WORKER_REPORT_SECONDS"] = "0.5"
        self.jobs[job] = subprocess.Popen(shlex.split(command), env=environment, stderr=subprocess.DEVNULL)
        return job

    def get_submitted_or_running(self, distributor_ids=None):
        return {job for job in distributor_ids or self.jobs if self.jobs[job].poll() is None}

    def terminate_task_instances(self, distributor_ids):
        for job in distributor_ids:
            self.jobs[job].terminate()

    def get_remote_exit_info(self, distributor_id):
        code = self.jobs[distributor_id].poll()
        if code is None:
            raise RemoteExitInfoNotAvailable
        return (TaskInstanceStatus.DONE, "") if code == 0 else (TaskInstanceStatus.ERROR, f"the job ended with {code}")

    def stop(self):
        for job in self.jobs.values():
            job.terminate()
            job.wait()


class BackyardWorkerNode(ClusterWorkerNode):
    @property
    def distributor_id(self):
        return os.environ.get("BACKYARD_JOB")

    @property
    def array_step_id(self):
        return int(os.environ.get("BACKYARD_STEP", "0"))


def get_cluster_queue_class():
    return ClusterQueue


def get_cluster_distributor_class():
    return BackyardDistributor


def get_cluster_worker_node_class():
    return BackyardWorkerNode
