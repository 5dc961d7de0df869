"""What a new user's first run loads."""

from pathlib import Path

import pytest

from jobmon.core import access

SCRIPT = """
from jobmon.client.api import Tool

tool = Tool("first")
workflow = tool.create_workflow(name="first", default_cluster_name="multiprocess")
template = tool.get_task_template("t", "echo {text}", node_args=["text"])
workflow.add_tasks([template.create_task(text=text) for text in ("a", "b")])
assert workflow.run() == "D"
"""


@pytest.mark.sqlite_only(reason="servers on PostgreSQL need SQLAlchemy to connect")
def test_the_server_of_a_first_run_never_loads_sqlalchemy(home):
    assert home.python(SCRIPT).returncode == 0
    (listed,) = home.json("workflow", "status")
    assert len(home.json("workflow", "tasks", "-w", str(listed["workflow_id"]))) == 2
    server = access.find_server(Path(home.environment["JOBMON_DATA_DIR"]))
    assert server is not None
    loaded = Path(f"/proc/{server.pid}/maps").read_text()  # SQLAlchemy has modules in C
    assert "msgspec" in loaded
    assert "sqlalchemy" not in loaded
