"""Every view in both themes and at three widths: axe finds nothing, nothing scrolls sideways, the keyboard suffices."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_world import HOSTILE
from playwright.sync_api import expect

AXE = Path(__file__).resolve().parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SECTIONS = ("Graph", "All tasks", "Timeline", "Resources", "Versions", "History")
WIDTHS = (1440, 1024, 360)
expect.set_options(timeout=20_000)


@pytest.fixture
def checked(page):
    """Return a function that examines what the page shows."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make ui")
    page.add_init_script(path=AXE)

    def check(what):
        width = page.viewport_size["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{what} scrolls sideways at {width}"
        found = page.evaluate("tags => axe.run(document, {runOnly: tags})", RULES)["violations"]
        places = [(one["id"], one["impact"], node["html"][:200]) for one in found for node in one["nodes"]]
        assert places == [], what

    return check


def opened(world, page, name):
    page.goto(world.address("-w", str(world.workflow(name))))
    expect(page.get_by_role("region", name="Progress")).to_be_visible()


def open_sections(page):
    for name in SECTIONS:
        section = page.get_by_role("region", name=name, exact=True)
        section.locator("summary").first.click()
    for table in ("Running attempts", "Critical path", "Resources by template", "Versions", "History"):
        expect(page.get_by_role("table", name=table, exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="Dependencies between templates")).to_be_visible()
    expect(page.get_by_role("region", name="Squares")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_views_of_workflows_and_tasks_are_accessible(world, page, checked, theme, width):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(world.address())
    expect(page.get_by_role("table", name="Workflows")).to_be_visible()
    checked("the list")
    opened(world, page, "gescheitert ✗")
    open_sections(page)
    checked("a workflow")
    page.get_by_role("table", name="Tasks", exact=True).get_by_role("link", name="after", exact=True).click()
    expect(page.get_by_role("region", name="Dependencies of this task")).to_be_visible()
    checked("a task that waits")
    page.get_by_role("link", name="estimate_1", exact=True).click()
    expect(page.get_by_role("region", name="Output of attempt 1")).to_contain_text("cannot open table")
    checked("a task that failed")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_dialogs_and_hostile_names_are_accessible(world, page, checked, theme, width):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    opened(world, page, HOSTILE)
    open_sections(page)
    checked("a workflow with a hostile name")
    group = page.get_by_role("group", name="Actions on all tasks")
    for action in ("Skip", "Priority", "Edit"):
        group.get_by_role("button", name=action, exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("Preview")).to_be_visible()
        checked(f"the dialog {action}")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_is_accessible(world, page, checked, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 360, "height": 900})
    path = world.folder / f"report-{theme}.html"
    world.jobmon("workflow", "report", "-w", world.workflow("gescheitert ✗"), "-o", path)
    page.goto(path.as_uri())
    expect(page.get_by_role("region", name="Dependencies between templates")).to_be_visible()
    checked("a report")


def test_a_section_and_a_node_of_the_graph_are_opened_with_the_keyboard(world, page):
    opened(world, page, "gescheitert ✗")
    page.keyboard.press("Tab")
    graph = page.get_by_role("region", name="Graph", exact=True)
    for _ in range(60):
        if graph.locator("summary").evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    node = graph.get_by_role("link", name="step: 0 done of 1")
    expect(node).to_be_visible()
    for _ in range(5):
        if node.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    tasks = page.get_by_role("table", name="Tasks", exact=True)
    expect(tasks.locator('td[data-head="Task"]')).to_have_text(["after"])
