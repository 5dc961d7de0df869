"""A notebook that is really executed shows progress, and an error as one line."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

DEFINE = """
from jobmon import Tool

tool = Tool(name="notebook")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow(workflow_args="notebook", name="notebook", default_max_attempts=1)
workflow.add_tasks(step.create_tasks(command=["true", "sleep 1", "sleep 0.5"]))
"""


def test_progress_and_refusals(home, monkeypatch):
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("JOBMON") and name not in home.environment]:
        monkeypatch.delenv(name)
    cells = [nbformat.v4.new_code_cell(text) for text in (DEFINE, "workflow.run()", "workflow.run()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(
        notebook, timeout=100, allow_errors=True, resources={"metadata": {"path": home.folder}}
    )
    client.execute()

    shown = [output for output in cells[1].outputs if output.output_type == "display_data"]
    text = shown[0].data["text/plain"]
    assert "notebook (workflow 1)" in text
    assert "3 done" in text
    assert "jobmon workflow status 1" in text
    (result,) = [output for output in cells[1].outputs if output.output_type == "execute_result"]
    assert "D" in result.data["text/plain"]
    (error,) = [output for output in cells[2].outputs if output.output_type == "error"]
    assert error.traceback == [f"{error.ename}: {error.evalue}"]
