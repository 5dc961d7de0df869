"""Use the page as a person does, and check what it shows."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest
from benchmarks.big_database import build
from browser_world import BUSY, HOSTILE, LONG, RESTING, wait_until
from playwright.sync_api import expect

REFUSED = "401"
GONE = "net::ERR_"


IDLE_SECONDS = 6.0
DONE, RUNNING = re.compile(r"\d DONE"), re.compile(r"\d RUNNING")
LEFT = re.compile(r"^\d.* (s|ms|h) left$")
expect.set_options(timeout=20_000)


def cells(page, table, head):
    """Return the texts of a column, from top to bottom."""
    return page.get_by_role("table", name=table, exact=True).locator(f'td[data-head="{head}"]')


def base_of(address):
    return address.partition("#")[0]


def test_from_the_list_to_a_workflow_and_back(world, page):
    page.goto(world.address())
    expect(page.get_by_role("heading", level=1)).to_have_text("Workflows")
    assert "key" not in page.url
    rows = page.get_by_role("table", name="Workflows").get_by_role("row")
    failed = rows.filter(has_text="gescheitert ✗")
    expect(failed).to_contain_text("FAILED")
    for head, text in (("Tasks", "61"), ("Pending", "1"), ("Done", "56"), ("Fatal", "4")):
        expect(failed.locator(f'td[data-head="{head}"]')).to_have_text(text)
    expect(failed.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"4 FATAL of 61"))
    failed.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("gescheitert ✗ FAILED")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Workflows")


def test_the_list_is_filtered_by_name_and_status_and_the_address_says_so(world, page):
    page.goto(world.address())
    names = page.get_by_role("table", name="Workflows").get_by_role("link")
    expect(names).to_have_count(4)
    page.get_by_label("Name").fill("SCHEIT")
    expect(names).to_have_text(["gescheitert ✗"])
    page.get_by_label("Name").fill("")
    page.get_by_label("Status").select_option("done")
    expect(names).to_have_text(["fine"])
    assert page.url.endswith("?status=DONE")
    page.reload()
    expect(names).to_have_text(["fine"])
    page.get_by_label("Name").fill("nothing like it")
    expect(page.get_by_text("No workflow is like that.")).to_be_visible()


def test_what_went_wrong_leads_to_what_a_task_wrote(world, page):
    page.goto(world.address("-w", str(world.workflow("gescheitert ✗"))))
    wrong = page.get_by_role("region", name="What went wrong")
    expect(wrong).to_contain_text("4 failed attempts in 1 group")
    expect(wrong).to_contain_text("4 × 100%")
    expect(wrong).to_contain_text("estimate: exit code 3")
    expect(page.get_by_role("region", name="Current state")).to_contain_text("can run only after a fix and a resume")
    wrong.get_by_role("link", name=re.compile("estimate_")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("ERROR FATAL")
    expect(page.get_by_role("region", name="Output of attempt 1")).to_contain_text("cannot open table")
    attempts = page.get_by_role("region", name="Attempts")
    expect(attempts).to_contain_text("Attempt 1 ERROR exit code 3")
    expect(attempts.get_by_role("definition").filter(has_text="multiprocess")).to_be_visible()
    times = attempts.locator("time").first
    expect(times).to_have_attribute("title", re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$"))


def test_tasks_are_filtered_and_paged(world, page):
    page.goto(world.address("-w", str(world.workflow("gescheitert ✗"))))
    names = cells(page, "Tasks", "Task")
    expect(names).to_have_count(50)
    expect(names.nth(0)).to_have_text("estimate_0")  # failed, then what waits, then what is done
    expect(names.nth(4)).to_have_text("after")
    expect(page.get_by_role("region", name="Tasks", exact=True)).to_contain_text("50 of 61 tasks, failed ones first")
    page.get_by_role("link", name="More tasks").click()
    expect(names).to_have_text([f"estimate_{n}" for n in range(49, 60)])
    page.get_by_role("link", name="First tasks").click()
    expect(names).to_have_count(50)
    page.get_by_label("Task status").select_option("fatal")
    expect(names).to_have_text([f"estimate_{n}" for n in range(4)])
    page.get_by_role("combobox", name="Template").select_option("step")
    expect(page.get_by_text("No task is like that.")).to_be_visible()
    page.get_by_label("Task status").select_option("any")
    expect(names).to_have_text(["after"])
    page.get_by_role("link", name="after").click()
    expect(page.get_by_role("region", name="Neighbours")).to_contain_text("3 ERROR_FATAL")
    page.get_by_role("link", name="estimate_1", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("estimate_1")


def test_a_link_to_a_place_works_in_a_tab_that_had_none_and_in_one_that_did(world, page, context):
    address = world.address()
    page.goto(address)
    expect(page.get_by_role("table", name="Workflows")).to_be_visible()
    place = f"{base_of(address)}#/workflows/{world.workflow('gescheitert ✗')}?status=FATAL&name=2"
    other = context.new_page()
    other.goto(place)  # the open tab hands over the key
    expect(cells(other, "Tasks", "Task")).to_have_text(["estimate_2"])
    page.goto(place)
    expect(cells(page, "Tasks", "Task")).to_have_text(["estimate_2"])


def test_a_workflow_is_followed_while_it_runs(own_world, page):
    client = own_world.start()
    address = own_world.address()
    page.goto(address)
    row = page.get_by_role("row").filter(has_text="busy")
    expect(row).to_contain_text("RUNNING")
    row.get_by_role("link").click()
    progress = page.get_by_role("region", name="Progress")
    expect(progress.get_by_role("listitem").filter(has_text=RUNNING)).to_have_text("1 RUNNING")
    expect(page.get_by_role("region", name="Current state")).to_contain_text("1")
    for number in range(4):
        (own_world.folder / f"go-{number}").touch()
        expect(progress.get_by_role("listitem").filter(has_text=DONE)).to_have_text(f"{number + 1} DONE")
        if number == 1:
            expect(progress.get_by_role("listitem").filter(has_text=LEFT)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("DONE")
    expect(cells(page, "Tasks", "Status")).to_have_text(["DONE"] * 4)
    assert client.wait(30) == 0


def test_a_running_task_is_followed_to_its_end(own_world, page):
    own_world.start(BUSY)
    address = own_world.address()
    wait_until(lambda: '"busy"' in own_world.jobmon("workflow", "status", "-o", "json"))
    page.goto(f"{address.rpartition('&')[0]}&go=/workflows/{own_world.workflow('busy')}")
    page.get_by_role("link", name="busy_0").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("RUNNING")
    expect(page.get_by_text("It has written nothing yet.")).to_be_visible()
    (own_world.folder / "go-0").touch()
    expect(page.get_by_role("heading", level=1)).to_contain_text("DONE")
    expect(page.get_by_role("region", name="Output of attempt 1")).to_contain_text("task 0 is over")


def test_a_long_output_is_searched_read_in_parts_and_followed(own_world, page):
    own_world.start(LONG)
    address = own_world.address()
    wait_until(lambda: '"long"' in own_world.jobmon("workflow", "status", "-o", "json"))
    page.goto(f"{address.rpartition('&')[0]}&go=/workflows/{own_world.workflow('long')}")
    page.get_by_role("link", name="long", exact=True).click()
    output = page.get_by_role("region", name="Output of attempt 1")
    expect(output).to_contain_text("line number 79999")
    expect(output).not_to_contain_text(" 50%")
    expect(output).not_to_contain_text("FIRST ERROR")
    page.get_by_role("button", name="First error").click()
    expect(page.get_by_label("Lines found")).to_contain_text("FIRST ERROR: no space")
    expect(output).to_contain_text("FIRST ERROR: no space")
    page.get_by_label("Text in the output").fill("LINE NUMBER 123 ")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("0 lines found")).to_be_visible()
    page.get_by_label("Text in the output").fill("LINE NUMBER 1234")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("11 lines found")).to_be_visible()
    expect(output.locator("mark").first).to_have_text("line number 1234")
    page.get_by_role("button", name="Beginning").click()
    expect(output).to_contain_text("line number 0")
    page.get_by_role("button", name="Later").click()
    expect(output).to_contain_text("line number 7000")
    page.get_by_role("button", name="End").click()
    (own_world.folder / "go").touch()
    expect(output).to_contain_text("it is over")
    expect(page.get_by_role("heading", level=1)).to_contain_text("DONE")


def test_a_status_that_does_not_exist_is_named_instead_of_showing_everything(world, page):
    address = world.address().rpartition("&")[0]
    page.goto(f"{address}&go=/?status=BOGUS")
    expect(page.get_by_role("alert")).to_contain_text("There is no status BOGUS. Choose one of: ACTIVE")
    expect(page.get_by_role("table")).to_have_count(0)
    page.evaluate(f"location.hash = '#/workflows/{world.workflow('fine')}?status=BOGUS'")
    expect(page.get_by_role("alert")).to_contain_text("There is no status BOGUS. Choose one of: PENDING")
    expect(page.get_by_role("table", name="Tasks")).to_have_count(0)


def test_what_others_wrote_is_shown_and_runs_nothing(world, page):
    page.goto(world.address())
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    expect(page.get_by_role("region", name="What went wrong")).to_contain_text(HOSTILE)
    expect(cells(page, "Progress by template", "Template")).to_contain_text(HOSTILE)
    page.get_by_role("table", name="Tasks", exact=True).get_by_role("link").click()
    expect(page.get_by_role("region", name="Output of attempt 1")).to_have_text(HOSTILE)
    assert "\x1b" not in page.content()
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0


def test_the_page_keeps_its_figures_without_its_server_and_asks_for_a_new_link_to_the_next_one(
    own_world, page, expected
):
    """Another program may listen where the server was, so that a session ends with the process that gave it."""
    expected.allow(GONE, REFUSED)
    own_world.start()
    page.goto(own_world.address())
    page.get_by_role("link", name="busy").click()
    done = page.get_by_role("region", name="Progress").get_by_role("listitem").filter(has_text=DONE)
    expect(done).to_have_text("0 DONE")
    stopped = own_world.others()
    for process in stopped:  # else they start the server again
        process.suspend()
    os.kill(own_world.server(), signal.SIGKILL)
    expect(page.get_by_role("status")).to_contain_text("Server away since")
    expect(done).to_have_text("0 DONE")
    (own_world.folder / "go-0").touch()
    for process in stopped:
        process.resume()
    expect(page.get_by_role("status")).to_contain_text("Open the page again with jobmon ui")
    expect(done).to_have_text("0 DONE")
    page.goto(own_world.address())
    page.get_by_role("link", name="busy").click()
    expect(done).to_have_text("1 DONE")


@pytest.mark.parametrize("fragment", ["", "#key=wrong&user=me&go=/workflows/1", "#/tasks/1"])
def test_without_the_key_a_sentence_says_how_to_get_it(world, page, expected, fragment):
    expected.allow(REFUSED)
    page.goto(base_of(world.address()) + fragment)
    expect(page.get_by_role("alert").first).to_contain_text(
        "no key to this server, or one that was already used or has expired. Open it with the command jobmon ui."
    )
    assert "wrong" not in page.url


def test_what_is_not_there_is_said(world, page, expected):
    expected.allow("404")
    address = world.address()
    page.goto(f"{address.rpartition('&')[0]}&go=/workflows/4711")
    expect(page.get_by_text("There is no workflow 4711.").first).to_be_visible()
    page.goto(f"{base_of(address)}#/tasks/4711")
    expect(page.get_by_role("alert").first).to_contain_text("There is no task 4711.")
    page.goto(f"{base_of(address)}#/nowhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is here")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_narrow_window_needs_no_scrolling_sideways(world, page, colours):
    page.emulate_media(color_scheme=colours)
    page.set_viewport_size({"width": 320, "height": 640})
    address = world.address()
    page.goto(address)
    for place in ("/", f"/workflows/{world.workflow('gescheitert ✗')}", f"/workflows/{world.workflow(HOSTILE)}"):
        page.goto(f"{base_of(address)}#{place}")
        expect(page.get_by_role("table").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.get_by_role("table", name="Tasks", exact=True).get_by_role("link").click()
    expect(page.get_by_role("region", name="Attempts")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_keyboard_is_enough(world, page):
    page.goto(world.address())
    link = page.get_by_role("link", name="gescheitert")
    expect(link).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_contain_text("gescheitert")


def test_words_are_readable_against_what_is_behind_them(world, page):
    page.goto(world.address("-w", str(world.workflow("gescheitert ✗"))))
    expect(cells(page, "Tasks", "Status").first).to_be_visible()
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        assert page.evaluate(CONTRAST) >= 4.5


#: The least contrast of any text with the nearest background behind it (WCAG 2).
CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    const back = getComputedStyle(one).backgroundColor;
    return back.startsWith("rgba") && back.endsWith(" 0)") ? behind(one.parentElement) : back;
  };
  const texts = [...document.querySelectorAll("body *")]
    .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return Math.min(...texts.map((one) => {
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def test_an_open_page_keeps_the_server_and_a_closed_one_lets_it_go(own_world, page):
    own_world.environment["JOBMON__SERVER__IDLE_TIMEOUT"] = f"{IDLE_SECONDS}"
    assert own_world.start(RESTING).wait(60) == 0
    page.goto(own_world.address())
    expect(page.get_by_role("link", name="resting")).to_be_visible()
    server = own_world.server()
    opened = time.monotonic()
    while time.monotonic() < opened + 1.5 * IDLE_SECONDS:
        with page.expect_response("**/api/v1/workflows*"):
            pass
    assert own_world.server() == server
    page.close()
    wait_until(lambda: own_world.server() is None)


def test_of_a_hundred_thousand_tasks_the_first_figures_come_soon_and_few_tasks_are_read(own_world, page):
    (own_world.folder / "data").mkdir(mode=0o700)
    build(own_world.folder / "data" / "jobmon.sqlite", 100_000)
    address = own_world.address("-w", "1")
    sizes = []
    page.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    page.add_init_script(FIRST_FIGURES)
    page.goto(address)
    expect(page.get_by_role("listitem").filter(has_text=DONE)).to_have_text("65,910 DONE")
    expect(page.get_by_role("region", name="What went wrong")).to_contain_text("failures on n217")
    milliseconds = page.evaluate("window.firstFigures")
    sys.stderr.write(f"first figures after {milliseconds:.0f} ms\n")
    assert milliseconds < FIGURES_MILLISECONDS_MAX
    page.get_by_label("Task name").fill("final")
    expect(cells(page, "Tasks", "Task")).to_have_text(["final_0_0"])
    assert sum(sizes) < ANSWERS_BYTES_MAX


#: A quiet machine needs half a second; this one may be busy.
FIGURES_MILLISECONDS_MAX = 5_000
ANSWERS_BYTES_MAX = 250_000
FIRST_FIGURES = """
new MutationObserver(() => {
  if (!window.firstFigures && document.querySelector(".figures b")) window.firstFigures = performance.now();
}).observe(document, { childList: true, subtree: true });
"""
