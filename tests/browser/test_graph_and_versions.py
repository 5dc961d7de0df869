"""The graph, versions and edits of a workflow, its critical path, its tasks by importance, and files of a task."""

from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from browser_world import DEFINE, RESTING
from playwright.sync_api import expect

expect.set_options(timeout=20_000)

#: Run twice, with another number of tasks and another command the second time.
CHANGING = (
    DEFINE
    + """
from pathlib import Path
second = Path("second").exists()
Path("second").touch()
flow = recorded("changing")
makes = tool.get_task_template("make", command_template="sh -c 'echo {n} > {out}'", node_args=["n"],
                               task_args=["out"], outputs={"table": "{out}"})
sums = tool.get_task_template("sum", command_template="head -n {count} out_0.txt", task_args=["count"],
                              inputs=["out_0.txt"])
made = [makes.create_task(name=f"make_{n}", n=n, out=f"out_{n}.txt") for n in range(4 if second else 3)]
flow.add_tasks([*made, sums.create_task(name="sum", count=len(made), upstream_tasks=made)])
assert flow.run(**({"resume": True, "on_change": "rerun"} if second else {})) == "D"
"""
)


def opened(world, page, workflow_id):
    page.goto(world.address("-w", str(workflow_id)))
    expect(page.get_by_role("region", name="Progress")).to_be_visible()


def open_section(page, name):
    section = page.get_by_role("region", name=name, exact=True)
    section.locator("summary").first.click()
    return section


def cells(scope, head):
    return scope.locator(f'td[data-head="{head}"]')


def tasks(page):
    return page.get_by_role("table", name="Tasks", exact=True)


def test_the_graph_counts_tasks_and_leads_to_them(world, page):
    opened(world, page, world.workflow("gescheitert ✗"))
    graph = open_section(page, "Graph")
    nodes = graph.get_by_role("link")
    expect(nodes).to_have_count(2)
    expect(graph.get_by_role("link", name="estimate: 4 fatal, 56 done of 60")).to_be_visible()
    expect(graph.locator("g.edge")).to_have_count(1)
    expect(graph.locator("g.edge.lit title")).to_have_text("1 task of step after estimate")
    graph.get_by_role("link", name="step: 0 done of 1").click()
    expect(page).to_have_url(re.compile(r"template=step"))
    expect(cells(tasks(page), "Task")).to_have_text(["after"])


def test_a_task_shows_what_it_depends_on_as_a_graph(world, page):
    opened(world, page, world.workflow("gescheitert ✗"))
    tasks(page).get_by_role("link", name="after", exact=True).click()
    graph = page.get_by_role("region", name="Dependencies of this task")
    expect(graph.get_by_role("link")).to_have_count(3)
    expect(graph.locator("g.edge.lit")).to_have_count(3)
    graph.get_by_role("link", name="estimate_1: ERROR FATAL").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("estimate_1")
    expect(page.get_by_role("region", name="Dependencies of this task").get_by_role("link")).to_have_text(
        [re.compile("after")]
    )


def test_versions_edits_and_revisions_say_what_changed_and_by_whom(own_world, page):
    for _ in range(2):
        assert own_world.start(CHANGING).wait(90) == 0
    workflow_id = own_world.workflow("changing")
    opened(own_world, page, workflow_id)
    versions = open_section(page, "Versions")
    expect(cells(versions, "Version")).to_have_text(["2", "1"])
    expect(cells(versions, "What changed").first).to_contain_text("1 task added")
    expect(cells(versions, "What changed").last).to_have_text("as first defined")
    expect(cells(versions, "Runs")).to_have_text(["2", "1"])
    expect(versions.get_by_text("No task differs from what the script defined.")).to_be_visible()

    page.get_by_role("region", name="Tasks", exact=True).get_by_role("link", name="sum", exact=True).click()
    command = page.get_by_role("region", name="Command")
    command.get_by_text("1 earlier definition").click()
    definitions = command.get_by_role("table", name="Definitions")
    expect(cells(definitions, "Attempts")).to_have_text(["2", "1"])
    expect(cells(definitions, "Command").first.locator("ins")).to_have_text("4")


def test_the_files_of_a_task_and_whether_they_were_found(own_world, page):
    assert own_world.start(CHANGING).wait(90) == 0
    opened(own_world, page, own_world.workflow("changing"))
    page.get_by_role("region", name="Tasks", exact=True).get_by_role("link", name="make_0", exact=True).click()
    files = page.get_by_role("region", name="Files")
    expect(cells(files, "Kind")).to_have_text(["output"])
    expect(cells(files, "Name")).to_have_text(["table"])
    expect(cells(files, "Path")).to_contain_text("out_0.txt")
    expect(cells(files, "Found")).to_have_text(["yes"])
    expect(cells(files, "Size")).to_have_text(["2 B"])
    page.get_by_role("region", name="Neighbours").get_by_role("link", name="sum", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("sum")
    expect(cells(files, "Kind")).to_have_text(["input"])


def test_an_edit_is_listed_with_what_the_script_defined(own_world, page):
    assert own_world.start(RESTING).wait(60) == 0
    workflow_id = own_world.workflow("resting")
    own_world.jobmon("task", "edit", "-w", workflow_id, "rest_1", "--command", "echo other 1", "-y")
    opened(own_world, page, workflow_id)
    versions = open_section(page, "Versions")
    edits = versions.get_by_role("table", name="Edited tasks")
    expect(cells(edits, "Task")).to_have_text(["rest_1"])
    expect(cells(edits, "What")).to_contain_text("command: ")
    expect(cells(edits, "What").locator("del")).to_have_text("rest")
    expect(cells(edits, "What").locator("ins")).to_have_text("other")


def test_the_critical_path_is_marked_in_the_timeline(world, page):
    opened(world, page, world.workflow("gescheitert ✗"))
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "jobmon.sqlite")) as database, database:
        database.execute(
            "UPDATE task_instance SET ended_at = started_at + 7000000 WHERE task_id IN"
            " (SELECT id FROM task WHERE name = 'estimate_59')"
        )
    timeline = open_section(page, "Timeline")
    path = timeline.get_by_role("table", name="Critical path")
    expect(cells(path, "Task")).to_have_text(["estimate_59"])
    expect(cells(path, "Ran")).to_have_text(["7.0 s"])
    picture = timeline.get_by_role("img", name="Critical path: 1 task, which ran 7.0 s and waited 0 ms in between")
    expect(picture.locator("rect")).to_have_count(1)


def test_the_most_important_tasks_come_first_with_their_priorities(own_world, page):
    assert own_world.start(RESTING).wait(60) == 0
    workflow_id = own_world.workflow("resting")
    opened(own_world, page, workflow_id)
    expect(cells(tasks(page), "Task")).to_have_text(["rest_0", "rest_1", "rest_2"])
    expect(cells(tasks(page), "Priority")).to_have_count(0)
    own_world.jobmon("task", "hold", "-w", workflow_id, "rest_2", "-y")
    own_world.jobmon("task", "priority", "-w", workflow_id, "rest_1", "-p", "7", "-y")
    page.reload()
    expect(cells(tasks(page), "Task")).to_have_text(["rest_2", "rest_0", "rest_1"])
    expect(cells(tasks(page), "Priority")).to_have_text(["0", "0", "7"])
    tasks(page).get_by_role("link", name="rest_1").click()
    expect(page.get_by_text("priority 7")).to_be_visible()


def test_a_little_peak_of_memory_is_an_upper_bound(own_world, page):
    script = (
        DEFINE + 'flow = recorded("little")\nflow.add_task(step.create_task(name="one", command="true"))\nflow.run()\n'
    )
    assert own_world.start(script).wait(60) == 0
    with contextlib.closing(sqlite3.connect(own_world.folder / "data" / "jobmon.sqlite")) as database, database:
        database.execute(f"UPDATE task_instance SET max_rss_bytes = {11 * 2**20}")
    opened(own_world, page, own_world.workflow("little"))
    resources = open_section(page, "Resources")
    expect(cells(resources, "Memory")).to_contain_text("at most 11.0 MiB")
    page.get_by_role("link", name="one", exact=True).click()
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("at most 11.0 MiB")


def test_the_tasks_of_a_report_are_filtered_without_a_server(world, page):
    path = world.folder / "filtered.html"
    world.jobmon("workflow", "report", "-w", world.workflow("gescheitert ✗"), "-o", path)
    page.goto(path.as_uri())
    region = page.get_by_role("region", name="Tasks", exact=True)
    names = cells(region, "Task")
    expect(names).to_have_count(61)
    page.get_by_label("Task status").select_option("fatal")
    expect(names).to_have_text([f"estimate_{n}" for n in range(4)])
    page.get_by_label("Task name").press_sequentially("_2")
    expect(names).to_have_text(["estimate_2"])
    expect(page.get_by_label("Task name")).to_be_focused()
    page.get_by_role("combobox", name="Template").select_option("step")
    expect(page.get_by_text("No task is like that.")).to_be_visible()
    expect(page.get_by_role("region", name="Graph", exact=True).get_by_role("link")).to_have_count(2)


@pytest.mark.parametrize("name", ["Graph", "Versions", "Timeline"])
def test_a_workflow_without_attempts_has_these_views_too(world, page, name):
    opened(world, page, world.workflow("resting"))
    section = open_section(page, name)
    expect(section).not_to_contain_text("Reading")
    expect(section.get_by_role("alert")).to_have_count(0)
