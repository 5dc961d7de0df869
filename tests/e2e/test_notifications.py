"""A local server notifies its user, and commands do not learn where."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from tests.databases import SQLITE

SECRET = "pa55phrase"
WORKFLOW = """
from jobmon.client.api import Tool

tool = Tool("told")
template = tool.get_task_template("t", "env > {x}.env", node_args=["x"])
workflow = tool.create_workflow(name="told")
workflow.add_task(template.create_task(x="{folder}/command"))
print(workflow.run())
"""


@pytest.mark.sqlite_only(reason="it is about the local server")
def test_the_end_of_a_workflow_is_told_by_the_local_server(home, wait_until, databases):
    assert databases.dialect == SQLITE
    received = []

    class Post(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *ignored):
            """Be silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"json://{SECRET}:{SECRET}@127.0.0.1:{server.server_port}/{SECRET}"
        home.environment |= {"JOBMON__NOTIFY__URLS": url, "PYTHONWARNINGS": "ignore"}
        done = home.python(WORKFLOW.replace("{folder}", str(home.folder)))
        assert done.stdout.split() == ["D"], done.stderr
        wait_until(lambda: received)
        server.shutdown()
        thread.join()
    (message,) = received
    assert message["title"] == "DONE: workflow 1 told"
    assert message["message"].startswith("1 of 1 task done.\n")
    assert SECRET not in (home.folder / "command.env").read_text()
    assert SECRET not in home.jobmon("server", "logs", "-n", "200").stdout
