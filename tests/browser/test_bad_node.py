"""A person who has never seen the page finds the bad node, reruns exactly its failed tasks, and sees them done."""

from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from browser_world import DEFINE
from playwright.sync_api import expect
from test_actions import cells, confirm, preview, recorded

expect.set_options(timeout=20_000)

BAD = "node-7"
#: 36 tasks, of which every sixth fails until the file `repaired` is there, and two others always fail.
PREPARED = (
    DEFINE
    + """
prepared = recorded("prepared")
script = "test -e repaired && exit 0; [ $(($0 % 6)) -ne 1 ] || { echo disk full >&2; exit 5; }; exit 0"
tasks = [work.create_task(name=f"estimate_{n}", n=n, script=script) for n in range(36)]
others = [step.create_task(name=f"other_{n}", command=f"exit {3 + n}") for n in range(2)]
prepared.add_tasks([*tasks, *others])
assert prepared.run() == "E"
"""
)
#: As if it had run on a cluster of six nodes: `estimate` tasks on the node of their number, the others elsewhere.
ON_NODES = """
UPDATE task_instance SET host = (
    SELECT CASE WHEN task.name LIKE 'other%' THEN 'node-3'
        WHEN CAST(substr(task.name, 10) AS INTEGER) % 6 = 1 THEN 'node-7'
        ELSE 'node-' || (CAST(substr(task.name, 10) AS INTEGER) % 6) END
    FROM task WHERE task.id = task_instance.task_id)
"""
OF_NODE = {f"estimate_{n}" for n in range(36) if n % 6 == 1}


class Clicks:
    """Clicks, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, target):
        self.count += 1
        target.click()


def database(world):
    return contextlib.closing(sqlite3.connect(world.folder / "data" / "jobmon.sqlite"))


def tasks_of(world):
    """Return the status of each task, and how often it was tried."""
    with database(world) as opened:
        rows = opened.execute("SELECT name, status, attempt_count FROM task").fetchall()
    return {name: (status, count) for name, status, count in rows}


def prepared(world):
    """Record the workflow, and return its ID."""
    workflow_id = recorded(world, PREPARED)
    world.jobmon("server", "stop")
    with database(world) as opened, opened:
        assert opened.execute(ON_NODES).rowcount == 38
    return workflow_id


@pytest.mark.timeout(400)
def test_three_clicks_lead_to_the_bad_node_and_its_tasks_are_rerun_and_done(own_world, page):
    prepared(own_world)
    before = tasks_of(own_world)
    assert {name for name, (status, _) in before.items() if status == "F"} == {*OF_NODE, "other_0", "other_1"}

    click = Clicks()
    page.goto(own_world.address())
    click(page.get_by_role("table", name="Workflows").get_by_role("link", name="prepared"))
    wrong = page.get_by_role("region", name="What went wrong")
    expect(wrong.get_by_role("listitem").filter(has_text=f"on {BAD}").first).to_contain_text("6 of 8 failures")
    click(wrong.get_by_role("link", name="failed tasks of this host"))
    assert click.count <= 3
    expect(page.get_by_text(f"Only tasks whose newest attempt was on {BAD}.")).to_be_visible()
    expect(cells(page, "Task")).to_have_count(6)
    assert set(cells(page, "Task").all_inner_texts()) == OF_NODE

    (own_world.folder / "repaired").touch()
    actions = page.get_by_role("group", name="Actions on all tasks that match the filter")
    actions.get_by_role("button", name="Rerun", exact=True).click()
    expect(preview(page)).to_contain_text("6 tasks will be rerun: 6 ERROR FATAL.")
    confirm(page, "Rerun")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("6 tasks will be rerun.")
    confirm(page, "Close")
    now = tasks_of(own_world)
    assert {name for name in now if now[name] != before[name]} == OF_NODE

    page.get_by_role("button", name="Resume", exact=True).click()
    confirm(page, "Resume")
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("runs in the background", timeout=60_000)
    confirm(page, "Close")
    expect(page.get_by_text("No task is like that.")).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="On any host").click()
    page.get_by_label("Task status").select_option("done")
    expect(page.get_by_role("heading", name=re.compile("^Tasks"))).to_contain_text("36 hits", timeout=60_000)
    after = tasks_of(own_world)
    assert {name for name in OF_NODE if after[name] == ("D", 2)} == OF_NODE
    assert all(after[name] == ("D", 1) for name in after if name not in {*OF_NODE, "other_0", "other_1"})


def test_the_node_of_a_group_of_failures_leads_to_its_tasks_of_that_template(own_world, page):
    workflow_id = prepared(own_world)
    page.goto(own_world.address("-w", str(workflow_id)))
    page.get_by_role("region", name="What went wrong").get_by_role("link", name="node-3", exact=True).first.click()
    expect(cells(page, "Task")).to_have_text(["other_0", "other_1"])
    expect(page.get_by_role("combobox", name="Template")).to_have_value("step")
