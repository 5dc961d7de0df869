"""Skip, mark as done, set priorities and edit tasks from the page: preview, confirmation, inverse, audit, conflicts."""

from __future__ import annotations

import json

import pytest
from browser_world import BUSY, RESTING, wait_until
from playwright.sync_api import expect
from test_actions import CONFLICT, FAILED, cells, confirm, opened, preview, recorded, row

expect.set_options(timeout=20_000)


def start(page, action, of="all tasks"):
    page.get_by_role("group", name=f"Actions on {of}").get_by_role("button", name=action, exact=True).click()


def outcome(page):
    return page.get_by_role("dialog").get_by_role("status")


def statuses(world, workflow_id):
    found = json.loads(world.jobmon("workflow", "tasks", "-w", workflow_id, "-o", "json"))
    return {one["name"]: one["status"] for one in found}


def test_failed_tasks_are_skipped_and_run_after_all(own_world, page):
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    page.get_by_label("Task status").select_option("fatal")
    expect(cells(page, "Task")).to_have_text(["bad"])
    start(page, "Skip", "all tasks that match the filter")
    expect(preview(page)).to_contain_text("1 task will be skipped: 1 ERROR FATAL.")
    expect(preview(page)).to_contain_text("Tasks downstream will run as if these were done.")
    assert statuses(own_world, workflow_id)["bad"] == "F"
    confirm(page, "Skip")
    expect(outcome(page)).to_have_text("1 task skipped.")
    assert statuses(own_world, workflow_id)["bad"] == "S"
    confirm(page, "Run them after all")
    expect(preview(page)).to_contain_text("1 task will be rerun: 1 SKIPPED.")
    confirm(page, "Run them after all")
    expect(outcome(page)).to_have_text("1 task will be rerun.")
    assert statuses(own_world, workflow_id)["bad"] == "G"
    assert "skip" in own_world.jobmon("workflow", "history", "-w", workflow_id)


def test_what_is_done_is_not_skipped_and_the_preview_says_so(own_world, page):
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    start(page, "Skip")
    expect(preview(page)).to_contain_text("2 tasks will be skipped: 1 ERROR FATAL, 1 REGISTERING.")
    expect(preview(page)).to_contain_text("2 selected tasks will not change (done or in progress).")
    confirm(page, "Cancel")
    page.get_by_label("Task status").select_option("done")
    expect(cells(page, "Task")).to_have_text(["fine_0", "fine_1"])
    start(page, "Skip", "all tasks that match the filter")
    expect(preview(page)).to_contain_text("Nothing to do: none of 2 selected tasks can be skipped now")
    expect(page.get_by_role("dialog").get_by_role("button", name="Skip", exact=True)).to_have_count(0)


def test_tasks_are_marked_as_done(own_world, page):
    workflow_id = recorded(own_world, FAILED)
    opened(own_world, page, workflow_id)
    page.get_by_role("checkbox", name="Select bad").check()
    start(page, "Mark as done", "1 selected task")
    expect(preview(page)).to_contain_text("1 task will be marked as done: 1 ERROR FATAL.")
    confirm(page, "Mark as done")
    expect(outcome(page)).to_have_text("1 task marked as done.")
    assert statuses(own_world, workflow_id)["bad"] == "D"
    confirm(page, "Close")
    expect(row(page, "bad")).to_contain_text("DONE")


def test_a_priority_is_set_and_taken_back(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("checkbox", name="Select rest_1").check()
    start(page, "Priority", "1 selected task")
    expect(preview(page)).to_have_text("Type a number from -1000 to 1000; tasks with higher ones start first.")
    page.get_by_label("New priority").fill("1001")
    expect(page.get_by_role("dialog").get_by_role("button", name="Set the priority")).to_have_count(0)
    page.get_by_label("New priority").fill("7")
    expect(preview(page)).to_have_text("1 task will be set to priority 7 (now 0): 1 REGISTERING.")
    confirm(page, "Set the priority")
    expect(outcome(page)).to_have_text("1 task set to priority 7.")
    expect(row(page, "rest_1").locator('td[data-head="Priority"]')).to_have_text("7")
    confirm(page, "Back to priority 0")
    expect(preview(page)).to_have_text("1 task will be set to priority 0 (now 7): 1 REGISTERING.")
    confirm(page, "Back to priority 0")
    expect(cells(page, "Priority")).to_have_count(0)


def test_an_amount_that_cannot_be_read_is_named_and_can_be_corrected(own_world, page, expected):
    expected.allow("422")
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    start(page, "Edit")
    page.get_by_label("Memory, such as 8G").fill("much")
    expect(preview(page)).to_contain_text("memory much")
    confirm(page, "Edit")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("'much' cannot be read")
    page.get_by_label("Memory, such as 8G").fill("64M")
    page.get_by_label("Attempts, at most").fill("9")
    expect(preview(page)).to_contain_text("3 tasks will be edited: 3 REGISTERING.")
    expect(preview(page)).to_contain_text("Their next attempts: memory 64M, attempts at most 9.")
    confirm(page, "Edit")
    expect(outcome(page)).to_have_text("3 tasks edited.")
    expect(cells(page, "Attempts")).to_have_text(["0 of 9"] * 3)
    confirm(page, "Back to the script")
    expect(preview(page)).to_contain_text("Their command, resources and attempts will be those of the script again.")
    confirm(page, "Back to the script")
    expect(outcome(page)).to_have_text("3 tasks reset to the script.")
    expect(cells(page, "Attempts")).to_have_text(["0 of 1"] * 3)
    history = own_world.jobmon("workflow", "history", "-w", workflow_id)
    assert history.count("edit") >= 2


def test_the_page_offers_the_command_that_edits_a_command(own_world, page):
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("link", name="rest_0", exact=True).click()
    page.get_by_role("button", name="Edit", exact=True).click()
    copy = page.get_by_role("dialog").get_by_role("button", name="Copy: jobmon task edit 1 --command 'TEXT'")
    expect(copy).to_be_visible()


@pytest.mark.parametrize(
    ("action", "verb", "fill"),
    [
        ("Priority", "Set the priority", ("New priority", "5")),
        ("Edit", "Edit", ("Attempts, at most", "5")),
        ("Skip", "Skip", None),
    ],
)
def test_what_changed_meanwhile_is_previewed_again(own_world, page, expected, action, verb, fill):
    expected.allow(CONFLICT)
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    start(page, action)
    if fill:
        page.get_by_label(fill[0]).fill(fill[1])
    expect(preview(page)).to_contain_text("3 tasks will be")
    own_world.jobmon("task", "skip", "-w", workflow_id, "rest_1", "-y")
    own_world.jobmon("task", "hold", "-w", workflow_id, "rest_0", "-y")
    confirm(page, verb)
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Nothing was changed now")
    expect(preview(page)).to_contain_text("will be")
    assert statuses(own_world, workflow_id) == {"rest_0": "G", "rest_1": "S", "rest_2": "G"}
    confirm(page, verb)
    expect(outcome(page)).to_be_visible()


def test_a_failed_workflow_is_resumed_from_the_page(own_world, page):
    workflow_id = recorded(own_world, FAILED.replace("exit 3", "test -e mended"))
    (own_world.folder / "mended").touch()
    opened(own_world, page, workflow_id)
    actions = page.get_by_role("group", name="Actions on the workflow")
    actions.get_by_role("button", name="Resume", exact=True).click()
    expect(preview(page)).to_contain_text("with 2 unfinished tasks; failed ones are retried.")
    assert "FAILED" in own_world.jobmon("workflow", "status", "-w", workflow_id)
    confirm(page, "Resume")
    expect(outcome(page)).to_contain_text(f"Workflow {workflow_id} runs in the background", timeout=60_000)
    confirm(page, "Close")
    expect(page.get_by_role("heading", level=1)).to_contain_text("DONE", timeout=60_000)
    expect(actions.get_by_role("button", name="Resume", exact=True)).to_have_count(0)
    history = own_world.jobmon("workflow", "history", "-w", workflow_id, "-o", "json")
    assert "resume in the background" in history


def test_a_workflow_that_runs_meanwhile_is_not_resumed_again(own_world, page, expected):
    expected.allow(CONFLICT)
    script = BUSY.replace("busy.run()", "busy.bind()")
    workflow_id = recorded(own_world, script)
    opened(own_world, page, workflow_id)
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(preview(page)).to_contain_text("with 4 unfinished tasks")
    own_world.start(BUSY)
    wait_until(lambda: '"R"' in own_world.jobmon("workflow", "status", "-w", workflow_id, "-o", "json"))
    confirm(page, "Resume")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Nothing was changed now")
    expect(preview(page)).to_contain_text("Nothing to resume: run")


def test_the_priority_of_a_template_is_set_and_taken_back(own_world, page, expected):
    expected.allow(CONFLICT)
    workflow_id = recorded(own_world, RESTING)
    opened(own_world, page, workflow_id)
    page.get_by_role("group", name="Actions on the workflow").get_by_role("button", name="Priority").click()
    dialog = page.get_by_role("dialog")
    expect(preview(page)).to_contain_text("Type a number from -1000 to 1000")
    dialog.get_by_label("New priority").fill("7")
    expect(preview(page)).to_contain_text("Afterwards: 7, for 3 unfinished tasks.")
    dialog.get_by_label("Tasks of").select_option("step")
    expect(preview(page)).to_contain_text("Tasks of templates with a higher priority start first.")
    confirm(page, "Set the priority")
    expect(outcome(page)).to_have_text("step: priority 7.")
    confirm(page, "Back to priority 0")
    expect(preview(page)).to_contain_text("Now: 7.")
    own_world.jobmon("workflow", "priority", "-w", workflow_id, "-t", "step", "-p", "9", "-y")
    confirm(page, "Back to priority 0")
    expect(dialog.get_by_role("alert")).to_contain_text("The priority was changed from 7 to 9 in the meantime.")
    expect(preview(page)).to_contain_text("Now: 9.")
    confirm(page, "Back to priority 0")
    expect(outcome(page)).to_have_text("step: priority 0.")
    assert own_world.jobmon("workflow", "history", "-w", workflow_id).count("priority") >= 3
