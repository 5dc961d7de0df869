"""A foreign plug-in: a direct cluster, whose commands outlive the distributor. Each is watched by a process of its own.

That process (this file as a program) notes in a folder what it runs and how that ended; an adapter looks there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SLOTS = 2.0
GRACE_SECONDS = 0.3


def watch(path):
    """Run the command of a launch; write its outcome next to it."""
    launch = json.loads(Path(path).read_text())
    outcome = {"started_at": time.time(), "cpu_seconds": 0.0}
    try:
        os.umask(launch["umask"])
        with open(launch["stdout"], "ab") as out, open(launch["stderr"], "ab") as err:
            child = subprocess.Popen(
                [*launch["shell"], launch["command"]],
                cwd=launch["working_directory"],
                env={**os.environ, **launch["env"]},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    except OSError as error:
        outcome["not_started"] = f"{error.strerror}: {error.filename}"
    else:
        note(path, "pid", child.pid)
        end(path, child, launch["runtime_seconds"], outcome)
    note(path, "end", {**outcome, "ended_at": time.time()})


def end(path, child, runtime, outcome):
    try:
        code = child.wait(runtime)
    except subprocess.TimeoutExpired:
        outcome["timed_out"] = outcome["killed"] = True
        os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    outcome["killed"] = outcome.get("killed", False) or Path(f"{path}.kill").exists()
    outcome["exit_code" if code >= 0 else "signal"] = abs(code)


def note(path, suffix, value):
    temporary = Path(f"{path}.{suffix}.new")
    temporary.write_text(json.dumps(value))
    temporary.rename(f"{path}.{suffix}")


if __name__ == "__main__":
    watch(sys.argv[1])
else:
    from jobmon.core.cluster_protocol import ClusterQueue, DirectClusterDistributor, Exit, JoblessWorkerNode

    class WorkshopQueue(ClusterQueue):
        pass

    class WorkshopDistributor(DirectClusterDistributor):
        def __init__(self, cluster_name, *args, data_folder, workflow_id=0, **kwargs):
            super().__init__(cluster_name, *args, **kwargs)
            self.folder = data_folder / "workshop" / str(workflow_id)
            self.told = set()
            self.kill_at = {}
            self.watchers = set()

        def start(self):
            self.folder.mkdir(parents=True, exist_ok=True)

        def slots(self):
            return SLOTS

        def spawn(self, launches):
            for launch in launches:
                if launch.env.get("SPAWN") == "fails":
                    raise ZeroDivisionError("no workbench")
                path = self.folder / str(launch.task_instance_id)
                names = ("command", "working_directory", "umask", "stdout", "stderr", "runtime_seconds")
                given = {name: getattr(launch, name) for name in names}
                note(path, "launch", {**given, "env": dict(launch.env), "shell": list(launch.shell)})
                Path(f"{path}.launch").rename(path)
                words = [sys.executable, "-I", "-S", __file__, str(path)]
                self.watchers.add(os.posix_spawn(words[0], words, os.environ, setsid=True))
            return {launch.task_instance_id: str(launch.task_instance_id) for launch in launches}

        def here(self, suffix):
            return {path.name.partition(".")[0] for path in self.folder.glob(f"*.{suffix}")}

        def alive(self):
            return {path.name for path in self.folder.glob("*") if "." not in path.name} - self.here("end")

        def terminate_task_instances(self, distributor_ids):
            for identity in set(distributor_ids) & self.alive():
                (self.folder / f"{identity}.kill").touch()
                self.kill_at[identity] = time.monotonic() + GRACE_SECONDS
                self.signal(identity, signal.SIGINT)

        def signal(self, identity, number):
            """Send a signal; return False if the command is still being started."""
            path = self.folder / f"{identity}.pid"
            if not path.exists():
                return False
            with contextlib.suppress(ProcessLookupError):
                os.killpg(json.loads(path.read_text()), number)
            return True

        def collect_exits(self):
            self.watchers = {pid for pid in self.watchers if os.waitpid(pid, os.WNOHANG)[0] == 0}
            for identity, due in list(self.kill_at.items()):
                if time.monotonic() >= due and self.signal(identity, signal.SIGKILL):
                    del self.kill_at[identity]
            new = self.here("end") - self.told
            self.told |= new
            return [
                Exit(
                    task_instance_id=int(one),
                    distributor_id=one,
                    **json.loads((self.folder / f"{one}.end").read_text()),
                )
                for one in sorted(new)
            ]

        def acknowledge(self, task_instance_ids):
            for identity in task_instance_ids:
                for path in self.folder.glob(f"{identity}*"):
                    if path.name.partition(".")[0] == str(identity):
                        path.unlink()

        def adopt(self):
            return {int(identity): identity for identity in self.alive()}

        def fileno(self):
            return -1

    class WorkshopWorkerNode(JoblessWorkerNode):
        pass

    def get_cluster_queue_class():
        return WorkshopQueue

    def get_cluster_distributor_class():
        return WorkshopDistributor

    def get_cluster_worker_node_class():
        return WorkshopWorkerNode

    def get_default_queues():
        return [("default", {"default_cores": 1})]
