"""Request too little on purpose, let Jobmon increase the missing resource, and request the right amount next time.

One task needs more memory than it requests, another more time. Both are killed, retried with more of the missing
resource only, and succeed. With a file of requests generated from their usage, the second run succeeds at the first
attempt.
"""

import subprocess
import sys
from pathlib import Path

from jobmon.client.api import Tool

MEMORY = """{python} -S -c 'import time; block = bytearray({mib} << 20); time.sleep({seconds})'"""
REQUESTS = Path("requests.yaml")


def make(name: str, requests: Path | None = None):
    """Return the workflow; its tasks request too little unless a file of requests is given."""
    tool = Tool(name="resources example")
    hungry = tool.get_task_template("hungry", command_template=MEMORY, node_args=["mib", "seconds"], op_args=["python"])
    slow = tool.get_task_template("slow", command_template="sleep {seconds}", node_args=["seconds"])
    if requests is None:
        hungry.update_default_compute_resources("multiprocess", memory="60M", runtime="1m", cores=1)
        slow.update_default_compute_resources("multiprocess", memory="40M", runtime="1s", cores=1)
    else:
        tool.set_default_compute_resources_from_yaml("multiprocess", requests, set_task_templates=True)
    workflow = tool.create_workflow(name=name, default_max_attempts=4)
    workflow.add_task(hungry.create_task(name="hungry", mib=100, seconds=2, python=sys.executable))
    workflow.add_task(slow.create_task(name="slow", seconds=1.2))
    return workflow


def jobmon(*words: object) -> None:
    """Run a Jobmon command as in a terminal."""
    print("\n$ jobmon", *words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("jobmon")), *map(str, words)], check=True)


first = make("asks for too little")
print("first run:", first.run())
jobmon("task", "status", *(word for task in first.tasks.values() for word in ("-t", task.task_id)))
jobmon("workflow", "resources", "yaml", "-w", first.workflow_id, "-f", REQUESTS, "--stdout")
jobmon("workflow", "efficiency", "-w", first.workflow_id)

second = make("asks for the right amount", REQUESTS)
print("\nsecond run:", second.run())
jobmon("workflow", "status", "-w", second.workflow_id)
jobmon("task", "status", *(word for task in second.tasks.values() for word in ("-t", task.task_id)))
