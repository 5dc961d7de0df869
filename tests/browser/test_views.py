"""Timeline, resources and history of a workflow, and the report that holds them all in one file."""

from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from browser_world import HOSTILE
from playwright.sync_api import expect

expect.set_options(timeout=20_000)

BREAKOUT = "</script><script>window.pwned=1</script>\u202e"


def opened(world, page, name):
    page.goto(world.address("-w", str(world.workflow(name))))
    expect(page.get_by_role("region", name="Progress")).to_be_visible()


def open_section(page, name):
    page.get_by_role("region", name=name).get_by_text(name, exact=True).click()
    return page.get_by_role("region", name=name)


def cells(scope, head):
    return scope.locator(f'td[data-head="{head}"]')


def test_the_timeline_shows_how_many_attempts_ran(world, page):
    opened(world, page, "gescheitert ✗")
    timeline = open_section(page, "Timeline")
    expect(timeline.get_by_text(re.compile(r"At most \d+(\.\d)? attempts ran at once, around"))).to_be_visible()
    expect(timeline.get_by_role("img", name="Running attempts over time")).to_be_visible()
    expect(cells(timeline, "Name")).to_have_text([" estimate"])
    expect(cells(timeline, "Ended")).to_have_text(["60"])
    timeline.get_by_label("By").select_option("host")
    expect(cells(timeline, "Ended")).to_have_text(["60"])
    expect(cells(timeline, "Name")).not_to_have_text([" estimate"])


def test_resources_compare_requests_with_use(world, page):
    opened(world, page, "gescheitert ✗")
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "jobmon.sqlite")) as database, database:
        ids = "SELECT id FROM task_instance WHERE task_id IN (SELECT id FROM task WHERE name LIKE 'estimate_%')"
        # 1.5 GiB, 20 s, of which 10 s of one core
        database.execute(
            f"UPDATE task_instance SET max_rss_bytes = {3 * 2**29}, wallclock_seconds = 20, cpu_seconds = 10"
            f" WHERE id IN ({ids}) AND status = 'D'"
        )
    resources = open_section(page, "Resources")
    expect(cells(resources, "Template")).to_have_text(["estimate"])
    expect(cells(resources, "Attempts")).to_have_text(["60"])
    expect(cells(resources, "Memory")).to_contain_text("1.5 GiB")
    expect(cells(resources, "Memory")).to_contain_text("median 1.5 GiB")
    expect(cells(resources, "Time")).to_contain_text("20.0 s")
    expect(cells(resources, "Cores")).to_contain_text("0.50 of 1.00")
    expect(resources.get_by_role("img", name="50% of the request")).to_be_visible()


def test_the_history_says_who_did_what(world, page):
    opened(world, page, "fine")
    history = open_section(page, "History")
    expect(cells(history, "What").last).to_have_text("create workflow")
    expect(cells(history, "Who").last).to_contain_text("(owner)")
    expect(history).to_contain_text("tasks 2")


@pytest.mark.parametrize("width", [360, 1024])
def test_the_new_views_need_no_scrolling_sideways(world, page, width):
    page.set_viewport_size({"width": width, "height": 800})
    opened(world, page, HOSTILE)
    for name, inside in (
        ("Timeline", "Running attempts"),
        ("Resources", "Resources by template"),
        ("History", "History"),
    ):
        section = open_section(page, name)
        expect(section.get_by_role("table", name=inside)).to_contain_text(HOSTILE if name != "History" else "create")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.pwned") is None


#: Microseconds; queued, launched 1 s, started 4 s, ended 11 s later.
QUEUED = 1_790_000_000_000_000
FIGURES = f"""
UPDATE task_instance SET queued_at = {QUEUED}, launched_at = {QUEUED + 10**6}, started_at = {QUEUED + 4 * 10**6},
  ended_at = {QUEUED + 11 * 10**6}, wallclock_seconds = 7, cpu_seconds = 3.5, max_rss_bytes = {3 * 2**29},
  read_bytes = {5 * 2**20}, written_bytes = {2**20}, task_resources_id = :resources
WHERE task_id IN (SELECT id FROM task WHERE name LIKE 'fine_%')
"""
REQUEST = '{"cores": 1, "memory": 2, "runtime": 90, "env": {"DB_PASSWORD": "hunter2"}}'


def test_each_figure_of_an_attempt_is_the_recorded_one_and_secrets_are_hidden(world, page):
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "jobmon.sqlite")) as database, database:
        row = database.execute("SELECT queue_id, kind FROM task_resources").fetchone()
        found = database.execute(
            "INSERT INTO task_resources (queue_id, kind, requested, hash) VALUES (?, ?, ?, 'figures')", (*row, REQUEST)
        )
        database.execute(FIGURES, {"resources": found.lastrowid})
    opened(world, page, "fine")
    expect(cells(page.get_by_role("table", name="Progress by template"), "One takes")).to_have_text("7.0 s")
    page.get_by_role("link", name="fine_0").click()
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("Attempt 1 DONE")
    for name, text in {
        "Waited": "4.0 s",
        "Ran": "7.0 s",
        "Memory": "1.5 GiB of 2.0 GiB",
        "Time": "7.0 s of 90.0 s",
        "Cores busy": "0.50 of 1",
        "Read": "5.0 MiB",
        "Written": "1.0 MiB",
    }.items():
        term = page.locator("dl div").filter(has=page.locator("dt").get_by_text(name, exact=True))
        expect(term.get_by_role("definition")).to_have_text(text)
    asked = page.locator("dl div").filter(has=page.locator("dt").get_by_text("Asked for", exact=True))
    expect(asked).to_contain_text("env: DB_PASSWORD")
    assert "hunter2" not in page.content()


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(world, page):
    """Return a function that writes the report of a workflow and opens it; nothing else is ever requested."""
    requested = []
    page.on("request", lambda request: requested.append(request.url))

    def show(name):
        path = world.folder / "report.html"
        world.jobmon("workflow", "report", "-w", world.workflow(name), "-o", path)
        page.goto(path.as_uri())
        return path.read_text()

    yield show
    assert requested
    assert {url.partition("#")[0] for url in requested} == {(world.folder / "report.html").as_uri()}


def test_a_report_shows_the_page_without_a_server(world, page, report):
    report("gescheitert ✗")
    expect(page.get_by_role("heading", level=1)).to_contain_text("gescheitert ✗ FAILED")
    expect(page.get_by_role("banner")).to_contain_text("Report of")
    progress = page.get_by_role("region", name="Progress").get_by_role("listitem")
    expect(progress.filter(has_text="FATAL")).to_have_text("4 FATAL")
    expect(page.get_by_role("region", name="What went wrong")).to_contain_text("4 failed attempts in 1 group")
    expect(page.get_by_role("region", name="All tasks").get_by_role("img")).to_have_attribute(
        "aria-label", "1 PENDING, 0 RUNNING, 56 DONE, 4 FATAL"
    )
    expect(cells(page.get_by_role("region", name="Timeline"), "Ended")).to_have_text(["60"])
    expect(cells(page.get_by_role("region", name="Resources"), "Attempts")).to_have_text(["60"])
    expect(cells(page.get_by_role("region", name="History"), "What").last).to_have_text("create workflow")
    tasks = page.get_by_role("region", name="Tasks", exact=True)
    expect(cells(tasks, "Task")).to_have_count(61)
    expect(cells(tasks, "Task").nth(3)).to_have_text("estimate_3")
    expect(page.get_by_role("button", name="Hold", exact=True)).to_have_count(0)
    tasks.get_by_role("link", name="estimate_2", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("estimate_2 ERROR FATAL")
    expect(page.get_by_role("region", name="Output of attempt 1")).to_contain_text("cannot open table")
    page.get_by_role("link", name=re.compile("^workflow")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("gescheitert ✗ FAILED")


def test_a_report_contains_no_value_of_env(world, report):
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "jobmon.sqlite")) as database, database:
        database.execute(
            "UPDATE task_resources SET requested = ? WHERE id IN (SELECT task_resources_id FROM task_instance WHERE"
            " task_id IN (SELECT id FROM task WHERE name LIKE 'fine_%'))",
            (REQUEST,),
        )
    content = report("fine")
    assert ("hunter2" in content, "DB_PASSWORD" in content) == (False, True)


def test_names_in_a_report_run_nothing_and_end_no_element(world, page, report):
    database_path = world.folder / "data" / "jobmon.sqlite"
    with contextlib.closing(sqlite3.connect(database_path)) as database, database:
        database.execute("UPDATE task SET name = ? WHERE name = ?", (BREAKOUT, HOSTILE))
    try:
        content = report(HOSTILE)
        assert BREAKOUT not in content
        expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
        expect(cells(page.get_by_role("region", name="Tasks", exact=True), "Task")).to_contain_text("</script><script>")
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert "\u202e" not in page.inner_text("body")
    finally:
        with contextlib.closing(sqlite3.connect(database_path)) as database, database:
            database.execute("UPDATE task SET name = ? WHERE name = ?", (HOSTILE, BREAKOUT))
