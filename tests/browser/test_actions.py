"""Actions on the page: each one is previewed, confirmed, recorded, and refused if something changed meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3

import pytest
from benchmarks.big_database import build
from browser_world import BUSY, DEFINE, HOSTILE, RESTING, wait_until
from playwright.sync_api import expect

expect.set_options(timeout=20_000)

#: One task fails, and one waits for it; two are done.
FAILED = (
    DEFINE
    + """
failed = recorded("failed")
bad = step.create_task(name="bad", command="exit 3")
after = step.create_task(name="after", command="echo never", upstream_tasks=[bad])
failed.add_tasks([bad, after, *(step.create_task(name=f"fine_{i}", command=f"echo {i}") for i in range(2))])
assert failed.run() == "E"
"""
)
CONFLICT = "409"


def cells(page, head):
    return page.get_by_role("table", name="Tasks", exact=True).locator(f'td[data-head="{head}"]')


def row(page, name):
    return page.get_by_role("table", name="Tasks", exact=True).get_by_role("row").filter(has_text=name)


def recorded(world, script):
    """Record what a script defines, and return its workflow."""
    assert world.start(script).wait(60) == 0
    (found,) = json.loads(world.jobmon("workflow", "status", "-o", "json"))
    return found["workflow_id"]


def opened(world, page, workflow_id):
    page.goto(world.address("-w", str(workflow_id)))
    expect(cells(page, "Task").first).to_be_visible()


def preview(page):
    return page.get_by_role("dialog").get_by_label("Preview")


def confirm(page, verb):
    page.get_by_role("dialog").get_by_role("button", name=verb, exact=True).click()


def test_more_tasks_than_a_request_takes_are_held_and_released_at_once(own_world, page):
    (own_world.folder / "data").mkdir(mode=0o700)
    build(own_world.folder / "data" / "jobmon.sqlite", 40_000)
    requests = []
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    opened(own_world, page, 1)
    group = page.get_by_role("group", name="Actions on all tasks")
    group.get_by_role("button", name="Hold").click()
    expect(preview(page)).to_contain_text(re.compile(r"1\d,\d{3} tasks will be held: .*REGISTERING"), timeout=60_000)
    (number,) = re.findall(r"1\d,\d{3}", preview(page).inner_text().partition(" tasks will")[0])
    confirm(page, "Hold")
    done = page.get_by_role("dialog").get_by_role("status")
    expect(done).to_contain_text(f"{number} tasks held.", timeout=60_000)
    assert requests.count("holds") == 2
    assert "is held" in own_world.jobmon("task", "explain", "-w", 1, "final_0_0")
    confirm(page, "Release again")
    expect(preview(page)).to_contain_text(f"{number} tasks will be released", timeout=60_000)
    confirm(page, "Release again")
    expect(done).to_contain_text(f"{number} tasks released.", timeout=60_000)


def test_selected_tasks_are_held_and_released_again(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("checkbox", name="Select rest_0").check()
    page.get_by_role("checkbox", name="Select rest_2").check()
    page.get_by_role("group", name="Actions on 2 selected tasks").get_by_role("button", name="Hold").click()
    expect(preview(page)).to_have_text("2 tasks will be held: 2 REGISTERING.")
    expect(row(page, "rest_0")).not_to_contain_text("HELD")
    confirm(page, "Hold")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("2 tasks held.")
    for name, is_held in (("rest_0", True), ("rest_1", False), ("rest_2", True)):
        assert ("is held" in own_world.jobmon("task", "explain", "-w", workflow_id, name)) == is_held
    confirm(page, "Release again")
    expect(preview(page)).to_have_text("2 tasks will be released: 2 REGISTERING.")
    expect(row(page, "rest_0")).to_contain_text("HELD")
    confirm(page, "Release again")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("2 tasks released.")
    confirm(page, "Close")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(row(page, "rest_0")).not_to_contain_text("HELD")
    page.get_by_text("History", exact=True).click()
    history = page.get_by_role("table", name="History").get_by_role("row")
    for number, action in ((1, "release"), (2, "hold")):
        expect(history.nth(number)).to_contain_text(action)
        expect(history.nth(number)).to_contain_text("(owner (page))")


def test_all_tasks_that_match_the_filter_are_rerun_with_what_is_downstream(own_world, page):
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    page.get_by_label("Task status").select_option("done")
    expect(cells(page, "Task")).to_have_text(["fine_0", "fine_1"])
    group = page.get_by_role("group", name="Actions on all tasks that match the filter")
    group.get_by_role("button", name="Rerun").click()
    expect(preview(page)).to_contain_text("2 tasks will be rerun: 2 DONE.")
    expect(preview(page)).to_contain_text("The workflow is not running")
    confirm(page, "Rerun")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("status")).to_have_text("2 tasks will be rerun.")
    expect(dialog.get_by_role("button", name=f"Copy: jobmon workflow resume {workflow_id}")).to_be_visible()
    confirm(page, "Close")
    page.get_by_label("Task status").select_option("any")
    expect(row(page, "fine_0")).to_contain_text("REGISTERING")
    expect(row(page, "bad")).to_contain_text("ERROR FATAL")


def test_squares_are_selected_with_shift_and_opened_by_a_click(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("region", name="All tasks").get_by_text("All tasks", exact=True).click()
    squares = page.get_by_role("region", name="Squares")
    expect(squares.get_by_role("img")).to_have_attribute("aria-label", "3 PENDING, 0 RUNNING, 0 DONE, 0 FATAL")
    third, second = {"x": 30, "y": 5}, {"x": 18, "y": 5}
    squares.click(modifiers=["Shift"], position=third)
    group = page.get_by_role("group", name="Actions on 1 selected square")
    expect(group).to_be_visible()
    squares.click(modifiers=["Shift"], position=second)
    group = page.get_by_role("group", name="Actions on 2 selected squares")
    group.get_by_role("button", name="Hold").click()
    expect(preview(page)).to_contain_text("2 tasks will be held")
    confirm(page, "Hold")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("2 tasks held.")
    confirm(page, "Close")
    for name, is_held in (("rest_0", False), ("rest_1", True), ("rest_2", True)):
        assert ("is held" in own_world.jobmon("task", "explain", "-w", workflow_id, name)) == is_held
    page.get_by_role("button", name="Select none").click()
    expect(group).to_have_count(0)
    squares.click(position=third)
    expect(page.get_by_role("heading", level=1)).to_contain_text("rest_2")


def test_a_task_is_held_and_rerun_on_its_own_page(own_world, page):
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    page.get_by_role("link", name="bad", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("ERROR FATAL")
    page.get_by_role("button", name="Hold", exact=True).click()
    expect(preview(page)).to_contain_text("1 task will be held: 1 ERROR FATAL.")
    confirm(page, "Hold")
    confirm(page, "Close")
    expect(page.get_by_role("heading", level=1)).to_contain_text("HELD")
    page.get_by_role("button", name="Rerun", exact=True).click()
    expect(preview(page)).to_contain_text("1 task will be rerun: 1 ERROR FATAL.")
    confirm(page, "Rerun")
    confirm(page, "Close")
    expect(page.get_by_role("heading", level=1)).to_contain_text("REGISTERING")


def test_nothing_happens_without_confirmation_and_the_keyboard_is_enough(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    hold = page.get_by_role("button", name="Hold", exact=True)
    hold.press("Enter")
    expect(preview(page)).to_contain_text("3 tasks will be held")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(hold).to_be_focused()
    assert "hold" not in own_world.jobmon("workflow", "history", "-w", workflow_id)
    page.keyboard.press("Enter")
    expect(preview(page)).to_contain_text("3 tasks will be held")
    act = page.get_by_role("dialog").get_by_role("button", name="Hold", exact=True)
    for _ in range(4):
        if act.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("3 tasks held.")


def test_what_somebody_else_changed_meanwhile_is_previewed_again_before_anything_happens(own_world, page, expected):
    expected.allow(CONFLICT)
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("button", name="Hold", exact=True).click()
    expect(preview(page)).to_contain_text("3 tasks will be held")
    own_world.jobmon("task", "hold", "-w", workflow_id, "rest_1", "-y")
    confirm(page, "Hold")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Nothing was changed now")
    expect(preview(page)).to_contain_text("2 tasks will be held")
    expect(preview(page)).to_contain_text("1 selected task will not change.")
    assert "is held" not in own_world.jobmon("task", "explain", "-w", workflow_id, "rest_0")
    confirm(page, "Hold")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text("2 tasks held.")


def test_a_running_workflow_is_limited_and_stopped(own_world, page):
    client = own_world.start(BUSY)
    wait_until(lambda: '"busy"' in own_world.jobmon("workflow", "status", "-o", "json"))
    workflow_id = own_world.workflow("busy")
    opened(own_world, page, workflow_id)
    running = page.get_by_role("region", name="Progress").get_by_role("listitem").filter(has_text="RUNNING")
    expect(running).to_have_text("1 RUNNING")

    page.get_by_role("button", name="Limit", exact=True).click()
    expect(preview(page)).to_contain_text("Now: at most 1 at once.")
    page.get_by_label("Tasks at once, at most").fill("0")
    expect(preview(page)).to_contain_text("Afterwards: paused.")
    confirm(page, "Set the limit")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("status")).to_have_text(f"Workflow {workflow_id}: paused.")
    confirm(page, "Back to at most 1 at once")
    expect(preview(page)).to_contain_text("Now: paused.")
    confirm(page, "Back to at most 1 at once")
    expect(dialog.get_by_role("status")).to_have_text(f"Workflow {workflow_id}: at most 1 at once.")
    confirm(page, "Close")

    page.get_by_role("button", name="Stop", exact=True).click()
    expect(preview(page)).to_contain_text("1 running task may finish.")
    page.get_by_label("Running tasks").select_option("are terminated")
    expect(preview(page)).to_contain_text("1 running task will be terminated.")
    confirm(page, "Stop")
    expect(dialog.get_by_role("status")).to_contain_text("was stopped. 1 attempt being terminated.")
    confirm(page, "Close")
    expect(page.get_by_role("heading", level=1)).to_contain_text("STOPPED")
    actions = page.get_by_role("group", name="Actions on the workflow")
    expect(actions.get_by_role("button", name=f"Copy: jobmon workflow resume {workflow_id}")).to_be_visible()
    expect(actions.get_by_role("button", name="Stop")).to_have_count(0)
    assert client.wait(60) == 0  # the script goes on after its run was stopped


def test_a_command_is_copied(own_world, page, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    reasons = page.get_by_role("region", name="Current state")
    reasons.get_by_role("button", name="Copy: jobmon workflow resume").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"jobmon workflow resume {workflow_id}"


def test_a_shared_address_shows_everything_and_offers_no_action(world, page):
    page.goto(world.address("--share", "-w", str(world.workflow("gescheitert ✗"))))
    expect(cells(page, "Task").first).to_be_visible()
    expect(page.get_by_text("read-only")).to_be_visible()
    for name in ("Hold", "Release", "Rerun", "Stop", "Limit"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    expect(page.get_by_role("checkbox")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("read-only")).to_be_visible()


def test_an_address_for_one_workflow_shows_it(world, page, expected):
    expected.allow("403")
    address = world.address("--only", "-w", str(world.workflow("fine")))
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_contain_text("fine DONE")
    page.goto(f"{address.partition('#')[0]}#/workflows/{world.workflow('resting')}")
    expect(page.get_by_role("alert").first).to_contain_text("only")


def test_the_owners_address_is_good_for_one_page(world, page, chromium, expected):
    address = world.address()
    page.goto(address)
    expect(page.get_by_role("table", name="Workflows")).to_be_visible()
    with contextlib.closing(chromium.new_context()) as other:
        second = other.new_page()
        second.goto(address)
        expect(second.get_by_role("alert").first).to_contain_text("already used")
    page.reload()
    expect(page.get_by_role("table", name="Workflows")).to_be_visible()


def test_names_in_previews_run_nothing(world, page):
    opened(world, page, world.workflow(HOSTILE))
    expect(page.get_by_role("checkbox", name=f"Select {HOSTILE}")).to_be_visible()
    page.get_by_role("button", name="Limit", exact=True).click()
    page.get_by_label("Tasks of").select_option(HOSTILE)
    expect(preview(page)).to_contain_text("Now: no limit.")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0


def test_removed_tasks_are_counted_and_shown_if_asked_for(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    with contextlib.closing(sqlite3.connect(own_world.folder / "data" / "jobmon.sqlite")) as database, database:
        database.execute("UPDATE task SET status = 'X' WHERE name = 'rest_1'")
        database.execute("UPDATE status_count SET number = 2 WHERE status = 'G'")
        database.execute("INSERT INTO status_count SELECT workflow_id, array_id, 'X', 1 FROM status_count")
    own_world.jobmon("server", "stop")  # it has counted in memory
    opened(own_world, page, workflow_id)
    expect(page.get_by_role("region", name="Progress")).to_contain_text("1 task removed by later versions")
    expect(cells(page, "Task")).to_have_text(["rest_0", "rest_2"])
    page.get_by_label("Task status").select_option("removed")
    expect(cells(page, "Task")).to_have_text(["rest_1"])
    expect(cells(page, "Status")).to_have_text(["REMOVED"])
    expect(page.get_by_role("button", name="Hold", exact=True)).to_have_count(0)
    page.get_by_role("link", name="rest_1").click()
    expect(page.get_by_text("A later version of the workflow removed this task.")).to_be_visible()
    expect(page.get_by_role("button", name="Rerun", exact=True)).to_have_count(0)


@pytest.mark.parametrize("width", [360, 1024])
def test_a_dialog_fits_into_the_window_and_is_readable(world, page, width):
    page.set_viewport_size({"width": width, "height": 700})
    opened(world, page, world.workflow("gescheitert ✗"))
    page.get_by_role("button", name="Rerun", exact=True).click()
    expect(preview(page)).to_contain_text("60 tasks will be rerun: 56 DONE, 4 ERROR FATAL.")
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
