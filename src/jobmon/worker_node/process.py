"""The worker's entry point: `python -I -S <this file> --cluster-name NAME --task-instance-id N`, or for one step of an
array `--array-id N --batch-number N --array-step-id N`. With `--packed yes` the process is a job of that batch that
takes its tasks from the server (`pilot.py`).

If a cluster sets the job's ID and the array step in environment variables, `--distributor-id-variable` and
`--array-step-variable` name these variables. With `--plugin NAME` the plug-in's `ClusterWorkerNode` supplies both. That
imports Jobmon's core, so the worker must then be started without `-S`.
"""

from __future__ import annotations

import os
import sys
import time
from _socket import gethostname

if __name__ == "__main__":  # started by its path: our package is not on the path yet; append it
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from jobmon.agent.machine import iso_time
from jobmon.agent.servers import data_folder
from jobmon.worker_node.host import JobHost

#: Folder in the data folder that `jobmon.distributor.undelivered` reads; a test compares both.
START_ERRORS_FOLDER = ("logs", "start_errors")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from jobmon.worker_node.job import Job


def options_of(argv: Sequence[str]) -> dict[str, str]:
    """Read `--name value` pairs (`argparse` imports a lot)."""
    if len(argv) % 2 or not all(name.startswith("--") for name in argv[::2]):
        raise SystemExit(f"Options come as '--name value': {' '.join(argv)}")
    return {name[2:]: value for name, value in zip(argv[::2], argv[1::2], strict=True)}


def start_request(options: Mapping[str, str], environment: Mapping[str, str], host: str, pid: int) -> dict[str, Any]:
    """Return the body of the start request."""
    distributor_id = environment.get(options.get("distributor-id-variable", ""))
    step = options.get("array-step-id") or environment.get(options.get("array-step-variable", ""))
    if "plugin" in options:
        distributor_id, step = _ask_plugin(options["plugin"])
    numbers = {
        "task_instance_id": options.get("task-instance-id"),
        "array_id": options.get("array-id"),
        "batch_number": options.get("batch-number"),
        "array_step_id": step if "array-id" in options else None,
    }
    request: dict[str, Any] = {key: None if value is None else int(value) for key, value in numbers.items()}
    return {
        **request,
        "distributor_id": distributor_id,
        "host": host,
        "pid": pid,
        "started_at": iso_time(time.time()),
    }


def _ask_plugin(name: str) -> tuple[str | None, str | None]:
    from jobmon.core.cluster import load_plugin

    node = load_plugin(name).get_cluster_worker_node_class()()
    step = node.array_step_id
    return node.distributor_id, None if step is None else str(step)


def main(argv: Sequence[str]) -> int:
    """Run a job."""
    options = options_of(argv)
    request = start_request(options, os.environ, gethostname(), os.getpid())
    name = request["distributor_id"] or ""
    access = JobHost(os.environ, name)
    if "packed" in options and not name:
        access.say("the cluster's plug-in does not provide the ID of this job")
        return 1
    job = job_of(options, request, dict(os.environ), access)
    code = job.work()
    if job.start_error and name:
        folder = os.path.join(data_folder(os.environ), *START_ERRORS_FOLDER, options.get("cluster-name", ""))
        _keep_start_error(folder, name, job.start_error)
    return code


def job_of(
    options: Mapping[str, str], request: Mapping[str, Any], environment: Mapping[str, str], access: JobHost
) -> Job:
    """Return the job that a command line describes."""
    if "packed" in options:
        from jobmon.worker_node.pilot import Pilot

        return Pilot(request, environment, access)
    from jobmon.worker_node.single import SingleJob

    return SingleJob(request, environment, access)


def _keep_start_error(folder: str, name: str, why: str) -> None:
    """Write why a job failed to a file that the distributor reads after the failure, if it shares this folder."""
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(why)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
