"""A third-party plug-in: a cluster whose jobs are processes of this machine, each with a worker."""

import os
import shlex
import signal
import subprocess
import sys

from jobmon.core.cluster_protocol import (
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ArraySubmission,
    ClusterDistributor,
    ClusterQueue,
    ClusterWorkerNode,
)
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, RemoteExitInfoNotAvailable, SubmissionRejected
from jobmon.worker_node import process

#: How long a job that is ended may take to exit by itself.
ENDING_SECONDS = 1.0


class BackyardQueue(ClusterQueue):
    extra_keys = frozenset({"refuse"})


class BackyardDistributor(ClusterDistributor):
    continues_arrays = True

    def __init__(self, cluster_name, *args, connection, **kwargs):
        super().__init__(cluster_name, *args, **kwargs)
        self.url = connection.get("url", "http://127.0.0.1:9")
        self.has_arrays = connection.get("arrays", False)
        self.ends_jobs = connection.get("ends_jobs", True)  # when it is stopped
        self.jobs = {}
        self.tokens = {}  # token -> step -> job
        self.room = None  # how many jobs there may be at once; None: any number
        self.loses_answers = False

    @property
    def worker_node_entry_point(self):
        return (
            f"{shlex.quote(sys.executable)} -I -S {shlex.quote(process.__file__)} "
            "--distributor-id-variable BACKYARD_JOB --array-step-variable BACKYARD_STEP"
        )

    def submit_to_batch_distributor(self, command, name, requested_resources):
        return self._submit(command, requested_resources, [0])[0]

    def submit_array_to_batch_distributor(self, command, name, requested_resources, array_length):
        first = requested_resources.get(FIRST_STEP, 0)
        return self._submit(command, requested_resources, range(first, first + array_length))

    def _submit(self, command, requested, steps):
        if requested.get("refuse"):
            raise SubmissionRejected("not in this backyard")
        living = len(self.get_submitted_or_running())
        fits = len(steps) if self.room is None else max(0, min(len(steps), self.room - living))
        full = ClusterFull("no room in the backyard") if fits < len(steps) else None
        if full is not None and not fits:
            raise full
        ids = {step: self._start(command, step) for step in steps[:fits]}
        self.tokens.setdefault(requested[SUBMISSION_TOKEN], {}).update(ids)
        if self.loses_answers:
            raise ClusterUnavailable("the wind was too loud")
        return ArraySubmission(ids, full)

    def _start(self, command, step):
        environment = {**os.environ, "BACKYARD_STEP": str(step), "JOBMON_WORKER_REPORT_SECONDS": "0.5"}
        if self.url:
            environment["JOBMON_SERVICE_URL"] = self.url
        words = ["/bin/sh", "-c", f"BACKYARD_JOB=$$ exec {command}"]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        self.jobs[str(process.pid)] = process
        return str(process.pid)

    def find_submitted(self, tokens):
        return {token: ids for token, ids in self.tokens.items() if token in tokens}

    def get_submitted_or_running(self, distributor_ids=None):
        return {job for job in distributor_ids or self.jobs if self._is_alive(job)}

    def _is_alive(self, job):
        """Return whether a job runs; those of an earlier distributor are not our child processes."""
        return self.jobs[job].poll() is None if job in self.jobs else os.path.exists(f"/proc/{job}")

    def terminate_task_instances(self, distributor_ids):
        for job in filter(self._is_alive, distributor_ids):
            os.kill(int(job), signal.SIGTERM)

    def get_remote_exit_info(self, distributor_id):
        code = self.jobs[distributor_id].poll() if distributor_id in self.jobs else None
        if code is None:
            raise RemoteExitInfoNotAvailable
        return (TaskInstanceStatus.DONE, "") if code == 0 else (TaskInstanceStatus.ERROR, f"the job ended with {code}")

    def stop(self):
        jobs = list(self.jobs.values()) if self.ends_jobs else []
        for job in jobs:
            job.terminate()
        for job in jobs:
            try:
                job.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:  # it has something to say to a server that this wait keeps from answering
                job.kill()
                job.wait()


class BackyardWorkerNode(ClusterWorkerNode):
    @property
    def distributor_id(self):
        return os.environ.get("BACKYARD_JOB")

    @property
    def array_step_id(self):
        return int(os.environ.get("BACKYARD_STEP", "0"))


def get_cluster_queue_class():
    return BackyardQueue


def get_cluster_distributor_class():
    return BackyardDistributor


def get_cluster_worker_node_class():
    return BackyardWorkerNode
